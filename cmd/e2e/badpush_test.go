package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBadPush pushes what must be refused, each in the pusher's terminal with
// its place, while the pods that run go on untouched.
func TestBadPush(t *testing.T) {
	c := newCluster(t)
	c.push(map[string]string{"nginx.yaml": nginxV1})
	before := c.running("nginx-deployment-", 2, 60*time.Second)
	rest := c.residentKiB()

	for _, bad := range []struct {
		name  string
		files map[string]string
		want  string // a regular expression of what the terminal shows
	}{
		{"typo", map[string]string{"nginx.yaml": strings.ReplaceAll(nginxV1, "replicas: 2", "replcas: 2")}, `nginx\.yaml:9:3: .*replcas.*replicas`},
		{"wrong type", map[string]string{"nginx.yaml": strings.ReplaceAll(nginxV1, "replicas: 2", "replicas: two")}, `nginx\.yaml:9:\d+: .*replicas`},
		{"enum", map[string]string{"nginx.yaml": strings.ReplaceAll(nginxV1, "- name: nginx\n", "- name: nginx\n        imagePullPolicy: Sometimes\n")}, `nginx\.yaml:\d+:\d+: .*imagePullPolicy.*must be one of Always, IfNotPresent, Never`},
		{"unknown kind", map[string]string{"x.yaml": "apiVersion: example.org/v1\nkind: Frobnicator\nmetadata: {name: x}\n"}, `x\.yaml:\d+.*Frobnicator`},
		{"duplicate object", map[string]string{"again.yaml": nginxV1}, `(again|nginx)\.yaml:\d+.*nginx-deployment`},
		{"syntax", map[string]string{"x.yaml": "a: [1\nb: 2\n"}, `x\.yaml:\d+`},
		{"bomb", map[string]string{"bomb.yaml": bomb()}, `bomb\.yaml`},
		{"endless CUE", map[string]string{"endless.cue": endless()}, `endless\.cue`},
		{"greedy CUE", map[string]string{"greedy.cue": greedy()}, `greedy\.cue`},
		{"large", map[string]string{"large.yaml": strings.Repeat("# filler that compresses well\n", 100<<20/30)}, `large\.yaml`},
	} {
		t.Run(bad.name, func(t *testing.T) {
			c := c.in(t)
			out := c.pushRefused(bad.files)
			if !regexp.MustCompile(bad.want).MatchString(out) {
				t.Errorf("the terminal shows:\n%s\nwant a match of %s", out, bad.want)
			}
		})
	}
	t.Run("symlink", func(t *testing.T) {
		c := c.in(t)
		if err := os.Symlink("/etc/passwd", filepath.Join(c.work, "link.yaml")); err != nil {
			t.Fatal(err)
		}
		if out := c.pushRefused(nil); !strings.Contains(out, "link.yaml") {
			t.Errorf("the terminal shows:\n%s\nwant link.yaml named", out)
		}
	})

	after := c.pods("nginx-deployment-")
	for name, p := range before {
		q := after[name]
		if q.UID != p.UID || q.Status.ContainerStatuses[0].ContainerID != p.Status.ContainerStatuses[0].ContainerID {
			t.Errorf("pod %s did not stay as it was", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("pods %v, want %v", maps.Keys(after), maps.Keys(before))
	}
	c.eventually(30*time.Second, "memory is back to normal", func() error {
		if now := c.residentKiB(); now > rest+64<<10 {
			return fmt.Errorf("%d KiB resident, %d KiB before the bad pushes", now, rest)
		}
		return nil
	})
}

// in is the same cluster for a subtest's failures.
func (c *cluster) in(t testing.TB) *cluster {
	d := *c
	d.t = t
	return &d
}

// bomb is YAML whose aliases expand to 10^9 strings.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

// endless is CUE that is never done.
func endless() string {
	var b strings.Builder
	b.WriteString("x: [for a in l for b in l for c in l for d in l for e in l for f in l for g in l for h in l if a == 0 {a}]\nl: [")
	for i := range 64 {
		fmt.Fprintf(&b, "%d,", i+1)
	}
	b.WriteString("]\n")
	return b.String()
}

// greedy is CUE that takes all memory there is.
func greedy() string {
	var b strings.Builder
	b.WriteString("a0: \"0123456789abcdef\"\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&b, "a%d: a%d + a%d\n", i, i-1, i-1)
	}
	return b.String()
}

// residentKiB is the daemon's resident memory.
func (c *cluster) residentKiB() int {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.daemon.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		c.t.Fatal("no VmRSS")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}
