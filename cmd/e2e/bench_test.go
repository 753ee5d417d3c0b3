package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/pawl-project/pawl/schema/kv"
)

// Each benchmark prints one or two rows of the table in README. They are to be
// run with -benchtime 1x: one run of each is many measurements.

// BenchmarkPushToRunning measures from the start of `git push` until the store
// says that the container runs, image present, 20 times.
func BenchmarkPushToRunning(b *testing.B) {
	c := newCluster(b)
	c.push(map[string]string{"warm.yaml": sleepers("warm", 1)})
	c.running("warm-", 1, 60*time.Second)
	watch := c.watchRunning()
	for b.Loop() {
		var whole, push []time.Duration
		for i := range 20 {
			name := fmt.Sprintf("p%d", i)
			c.write(map[string]string{name + ".yaml": sleepers(name, 1)})
			c.commit(name)
			start := time.Now()
			c.git(c.work, "push", "-q", "origin", "HEAD:main")
			push = append(push, time.Since(start))
			whole = append(whole, watch.until(b, name+"-", 1).Sub(start))
		}
		report(b, whole, "push-to-running", "git push → container running, image present", "p50 ≤ 100 ms")
		report(b, push, "git-push", "  of it, until git push returns", "")
		c.push(remove(c, "p*.yaml"))
		c.running("p", 0, 60*time.Second)
	}
}

// BenchmarkManyPods measures pushing and removing 50 and 100 pods.
func BenchmarkManyPods(b *testing.B) {
	c := newCluster(b)
	c.push(map[string]string{"warm.yaml": sleepers("warm", 1)})
	c.running("warm-", 1, 60*time.Second)
	watch := c.watchRunning()
	for b.Loop() {
		for _, n := range []int{50, 100} {
			name := fmt.Sprintf("m%d", n)
			c.write(map[string]string{name + ".yaml": sleepers(name, n)})
			c.commit(name)
			start := time.Now()
			c.git(c.work, "push", "-q", "origin", "HEAD:main")
			took := watch.until(b, name+"-", n).Sub(start)
			b.ReportMetric(float64(n)/took.Seconds(), fmt.Sprintf("pods/s-of-%d", n))
			row(fmt.Sprintf("%d pods, push → all running", n), fmt.Sprintf("%.1f pods/s", float64(n)/took.Seconds()), "≥ 40 pods/s of 100")

			c.write(map[string]string{name + ".yaml": ""})
			c.commit("remove " + name)
			start = time.Now()
			c.git(c.work, "push", "-q", "origin", "HEAD:main")
			took = watch.until(b, name+"-", 0).Sub(start)
			b.ReportMetric(took.Seconds(), fmt.Sprintf("s-to-delete-%d", n))
			row(fmt.Sprintf("%d pods deleted", n), fmt.Sprintf("%.1f s", took.Seconds()), "100 in ≤ 2 s")
		}
	}
}

// BenchmarkIdle measures what the daemon costs with nothing to do.
func BenchmarkIdle(b *testing.B) {
	c := newCluster(b)
	c.push(map[string]string{"warm.yaml": sleepers("warm", 2)})
	c.running("warm-", 2, 60*time.Second)
	for b.Loop() {
		const window = 20 * time.Second
		before := c.cpu()
		time.Sleep(window)
		core, rss := float64(c.cpu()-before)/float64(window)*100, float64(c.residentKiB())/1024
		b.ReportMetric(core, "%-of-a-core")
		b.ReportMetric(rss, "MiB-RSS")
		row("idle, everything but containerd", fmt.Sprintf("%.0f MiB, %.1f %% of a core", rss, core), "≤ 80 MiB, ≤ 0.5 %")
	}
}

// BenchmarkKilledContainer measures from the kill of a container's process until
// the store says that it runs again, first restart.
func BenchmarkKilledContainer(b *testing.B) {
	c := newCluster(b)
	for round := 0; b.Loop(); round++ {
		var took []time.Duration
		for i := range 5 {
			name := fmt.Sprintf("k%d-%d", round, i) // none was restarted before
			c.push(map[string]string{name + ".yaml": sleepers(name, 1)})
			var id string
			for _, p := range c.running(name+"-", 1, 60*time.Second) {
				id = strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
			}
			start := time.Now()
			if out, err := c.ctr("tasks", "kill", "-s", "KILL", id); err != nil {
				b.Fatalf("ctr: %v\n%s", err, out)
			}
			c.eventually(20*time.Second, "it runs again", func() error {
				for _, p := range c.pods(name + "-") {
					s := p.Status.ContainerStatuses[0]
					if s.RestartCount > 0 && s.State.Running != nil {
						return nil
					}
				}
				return fmt.Errorf("not yet")
			})
			took = append(took, time.Since(start))
		}
		report(b, took, "killed-to-running", "container killed → running again", "≤ 100 ms")
	}
}

// report prints the median and the 90th percentile in milliseconds.
func report(b *testing.B, d []time.Duration, unit, what, budget string) {
	slices.Sort(d)
	p50, p90 := d[len(d)/2], d[len(d)*9/10]
	b.ReportMetric(float64(p50.Microseconds())/1000, "ms-p50-"+unit)
	b.ReportMetric(float64(p90.Microseconds())/1000, "ms-p90-"+unit)
	row(what, fmt.Sprintf("p50 %d ms, p90 %d ms", p50.Milliseconds(), p90.Milliseconds()), budget)
}

// rows is the table that the benchmarks of one run fill; TestMain prints it.
var rows [][3]string

func row(what, measured, budget string) { rows = append(rows, [3]string{what, measured, budget}) }

func printRows(out io.Writer) {
	if len(rows) == 0 {
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\nWHAT\tMEASURED\tBUDGET\n")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r[0], r[1], r[2])
	}
	fmt.Fprintf(w, "(%d cores, %s)\n\n", runtime.NumCPU(), time.Now().Format(time.DateOnly))
	w.Flush()
}

// remove names the clone's files that match, for removal.
func remove(c *cluster, pattern string) map[string]string {
	c.t.Helper()
	paths, err := filepath.Glob(filepath.Join(c.work, pattern))
	if err != nil {
		c.t.Fatal(err)
	}
	files := map[string]string{}
	for _, p := range paths {
		files[filepath.Base(p)] = ""
	}
	return files
}

// cpu is the processor time the daemon has used.
func (c *cluster) cpu() time.Duration {
	c.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.daemon.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	fields := strings.Fields(regexp.MustCompile(`^\d+ \(.*\) `).ReplaceAllString(string(raw), ""))
	ticks := 0
	for _, f := range fields[11:13] { // utime, stime, in hundredths of a second
		n, err := strconv.Atoi(f)
		if err != nil {
			c.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// A runningWatch follows the store's reports, so that a measurement does not poll.
type runningWatch struct {
	view    *kv.View[kv.Actual]
	changes *kv.Changes
}

func (c *cluster) watchRunning() *runningWatch {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := c.store(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	store, err := kv.OpenStore(ctx, conn, kv.StoreOptions{Replicas: 1})
	if err != nil {
		c.t.Fatal(err)
	}
	view := kv.NewView(store, kv.Actuals, kv.DecodeActual)
	done := make(chan struct{})
	go func() {
		view.Run(ctx)
		close(done)
	}()
	c.t.Cleanup(func() {
		cancel()
		<-done
	})
	return &runningWatch{view: view, changes: view.Subscribe()}
}

// until returns when exactly n pods with the prefix are reported, all of them running.
func (w *runningWatch) until(t testing.TB, prefix string, n int) time.Time {
	t.Helper()
	give := time.After(3 * time.Minute)
	for {
		select {
		case <-w.changes.C:
		case <-give:
			t.Fatalf("%d pods %s* do not run", n, prefix)
		}
		w.changes.Drain()
		pods, running := 0, 0
		for e := range w.view.All() {
			r := e.Value.Report
			if r == nil || r.Gone || !strings.HasPrefix(r.Pod.Name, prefix) {
				continue
			}
			pods++
			if len(r.Pod.Status.ContainerStatuses) == 1 && r.Pod.Status.ContainerStatuses[0].State.Running != nil {
				running++
			}
		}
		if pods == n && running == n {
			return time.Now()
		}
	}
}
