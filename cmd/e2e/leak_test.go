package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema/kv"
)

// TestNothingIsLeft makes and removes pods that have everything a pod can have,
// PAWL_ROUNDS of them (60), and counts before and after what they are made of.
func TestNothingIsLeft(t *testing.T) {
	c := newCluster(t)
	c.push(map[string]string{"steady.yaml": sleepers("steady", 2)})
	c.running("steady-", 2, 60*time.Second)
	c.round(0) // what is made once and kept (images, pools) is there after this
	before := c.settledCounts()

	began := time.Now()
	rounds := (setting(t, "PAWL_ROUNDS", 60) + podsPerRound - 1) / podsPerRound
	for i := range rounds {
		c.round(i + 1)
	}
	t.Logf("%d pods came and went in %s", rounds*podsPerRound, time.Since(began).Round(time.Second))
	c.asBefore(before)
}

// asBefore awaits that there is as much of everything as was counted before.
func (c *cluster) asBefore(before map[string]int) {
	c.t.Helper()
	var after map[string]int
	c.eventually(60*time.Second, "as many of everything as before", func() error {
		after = c.counts()
		var faults []error
		for what, n := range before {
			if slack := allowed[what]; after[what] > n+slack || after[what] < n-slack-lingering[what] {
				faults = append(faults, fmt.Errorf("%s: %d, before %d", what, after[what], n))
			}
		}
		return errors.Join(faults...)
	})
	c.t.Logf("before and after: %v, %v", before, after)
}

// setting reads a number from the environment; CONTRIBUTING lists them.
func setting(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

// allowed is by how much a count may differ: HTTP keep-alive and the like come
// and go by single goroutines.
var allowed = map[string]int{"goroutines": 5}

// lingering is by how much the first count may have been too high: the kernel
// frees a pod's link a while after its namespace, and pools of goroutines that
// were busy shrink in their own time.
var lingering = map[string]int{"links": 2, "goroutines": 1000}

// settledCounts counts until three counts in a row are the same, but for what
// comes and goes all the time.
func (c *cluster) settledCounts() map[string]int {
	c.t.Helper()
	last, still := c.counts(), 1
	c.eventually(60*time.Second, "counts stand still", func() error {
		now := c.counts()
		for what, slack := range allowed {
			if d := now[what] - last[what]; max(d, -d) <= slack {
				last[what] = now[what]
			}
		}
		if still++; !maps.Equal(now, last) {
			still = 1
		}
		if last = now; still < 3 {
			return errors.New("they change")
		}
		return nil
	})
	return last
}

// podsPerRound is how many pods come and go at once.
const podsPerRound = 10

// round pushes pods that have everything, waits for them, and removes them.
func (c *cluster) round(i int) {
	c.t.Helper()
	name := fmt.Sprintf("r%d", i)
	c.push(map[string]string{"round.yaml": c.everything(name, podsPerRound)})
	c.running(name+"-", podsPerRound, 60*time.Second)
	c.push(map[string]string{"round.yaml": ""})
	c.noPods(name)
}

func (c *cluster) noPods(name string) {
	c.t.Helper()
	c.eventually(60*time.Second, "the round's pods are gone", func() error {
		if n := len(c.pods(name + "-")); n > 0 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
}

// counts counts everything of the instance.
func (c *cluster) counts() map[string]int {
	c.t.Helper()
	n := map[string]int{
		"mounts":       c.countLines("/proc/self/mountinfo", c.dir),
		"pinned files": countFiles(c.t, c.run),
		"log files":    countFiles(c.t, filepath.Join(c.data, "logs")),
		"agent files":  countFiles(c.t, filepath.Join(c.data, "agent")),
		"volumes":      countFiles(c.t, filepath.Join(c.data, "volumes")),
		"network":      countFiles(c.t, filepath.Join(c.data, "network")),
		"links":        c.countLinks(),
		"cgroups":      c.countCgroups(),
		"goroutines":   c.goroutines(),
	}
	for what, args := range map[string][]string{
		"containers": {"containers", "ls", "-q"},
		"tasks":      {"tasks", "ls", "-q"},
		"snapshots":  {"snapshots", "ls"},
		"leases":     {"leases", "ls", "-q"},
	} {
		out, err := c.ctr(args...)
		if err != nil {
			c.t.Fatalf("ctr: %v\n%s", err, out)
		}
		n[what] = strings.Count(out, "\n")
	}
	shims, err := processes("containerd-shim")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, line := range shims {
		if strings.Contains(line, c.run) {
			n["shims"]++
		}
	}
	for bucket, keys := range c.keys() {
		n["keys of "+bucket] = keys
	}
	return n
}

// countLines counts the lines of a file that hold a text.
func (c *cluster) countLines(file, text string) int {
	c.t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func countFiles(t testing.TB, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error {
		if err == nil {
			n++
		}
		return nil // what vanishes while we walk is not there
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// countLinks counts the ports of the instance's bridge.
func (c *cluster) countLinks() int {
	c.t.Helper()
	ports, err := os.ReadDir(filepath.Join("/sys/class/net", c.instance(), "brif"))
	if err != nil {
		c.t.Fatal(err)
	}
	return len(ports)
}

// countCgroups counts the instance's cgroups in every hierarchy.
func (c *cluster) countCgroups() int {
	c.t.Helper()
	n := 0
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, c.instance()) {
			n++
		}
		return nil // what vanishes while we walk is not there
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// instance is the name by which pawld marks what it makes outside its directories.
func (c *cluster) instance() string {
	sum := sha256.Sum256([]byte(c.data))
	return "pawl" + hex.EncodeToString(sum[:4])
}

// goroutines asks the daemon's metrics.
func (c *cluster) goroutines() int {
	c.t.Helper()
	token, err := os.ReadFile(filepath.Join(c.data, "token"))
	if err != nil {
		c.t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+c.http+"/metrics", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	body := readAll(c.t, response)
	m := regexp.MustCompile(`(?m)^go_goroutines (\d+)`).FindStringSubmatch(body)
	if m == nil {
		c.t.Fatalf("no go_goroutines in\n%s", body)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// keys counts the live keys of each bucket. Revision records are bounded by
// themselves and grow until then: they do not count.
func (c *cluster) keys() map[string]int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := c.store(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	n := map[string]int{}
	for _, bucket := range []kv.Bucket{kv.Desired, kv.Assignments, kv.Actuals} {
		keys, err := kv.ReadKeys(ctx, conn, bucket)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, k := range keys {
			if !strings.HasPrefix(k, string(kv.Revisions)+".") {
				n[string(bucket)]++
			}
		}
	}
	return n
}
