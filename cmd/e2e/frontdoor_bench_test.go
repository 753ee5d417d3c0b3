package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkPawlGetPods measures the whole of `pawl get pods`, from the start of
// the program to its end, 30 times.
func BenchmarkPawlGetPods(b *testing.B) {
	c := newCluster(b)
	c.push(map[string]string{"warm.yaml": sleepers("warm", 5)})
	c.running("warm-", 5, 60*time.Second)
	for b.Loop() {
		var took []time.Duration
		for range 30 {
			start := time.Now()
			if out, err := c.pawl("get", "pods"); err != nil || strings.Count(out, "Running") != 5 {
				b.Fatalf("%v\n%s", err, out)
			}
			took = append(took, time.Since(start))
		}
		report(b, took, "get-pods", "`pawl get pods`, the whole program", "p50 ≤ 30 ms")
	}
}

// BenchmarkExecTrue measures `pawl exec POD -- true` and, in turns with it,
// containerd's own `ctr tasks exec`: both are whole programs.
func BenchmarkExecTrue(b *testing.B) {
	c := newCluster(b)
	c.push(map[string]string{"warm.yaml": sleepers("warm", 1)})
	pods := c.running("warm-", 1, 60*time.Second)
	for b.Loop() {
		var ours, theirs []time.Duration
		for name, p := range pods {
			id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
			for i := range 20 {
				start := time.Now()
				if out, err := c.pawl("exec", name, "--", "true"); err != nil {
					b.Fatalf("pawl exec: %v\n%s", err, out)
				}
				ours = append(ours, time.Since(start))
				start = time.Now()
				if out, err := c.ctr("tasks", "exec", "--exec-id", fmt.Sprintf("bench%d", i), id, "true"); err != nil {
					b.Fatalf("ctr: %v\n%s", err, out)
				}
				theirs = append(theirs, time.Since(start))
			}
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		a, z := ours[len(ours)/2], theirs[len(theirs)/2]
		ratio := float64(a) / float64(z)
		b.ReportMetric(ratio, "×ctr-exec")
		row("`pawl exec POD -- true`", fmt.Sprintf("%d ms, %.1f × `ctr tasks exec` (%d ms)", a.Milliseconds(), ratio, z.Milliseconds()), "≤ 2 ×")
	}
}

// logMiB is how much BenchmarkLogs streams.
const logMiB = 1024

// BenchmarkLogs streams a log of 1 GiB through the front door: from the node's
// file over NATS to an HTTP client that throws it away. The container wrote a
// few lines; the rest is put in its log, which is longer than Pawl lets logs grow.
func BenchmarkLogs(b *testing.B) {
	c := newCluster(b)
	c.push(map[string]string{"talk.yaml": barePod("talk", "echo hello", "  restartPolicy: Never")})
	c.eventually(30*time.Second, "the container has ended", func() error {
		if p := c.pods("talk")["talk"]; p.Status.Phase != "Succeeded" {
			return fmt.Errorf("phase %q", p.Status.Phase)
		}
		return nil
	})
	logs, err := filepath.Glob(filepath.Join(c.data, "logs", "pods", "default_talk_*", "main", "0.log"))
	if err != nil || len(logs) != 1 {
		b.Fatalf("%v: %d logs", err, len(logs))
	}
	longLog(b, logs[0])
	for b.Loop() {
		before, peak := c.residentKiB(), 0
		start := time.Now()
		response, err := c.get(context.Background(), "/api/v1/namespaces/default/pods/talk/log", nil)
		if err != nil {
			b.Fatal(err)
		}
		if response.StatusCode != http.StatusOK {
			b.Fatal(response.Status)
		}
		var n int64
		buffer := make([]byte, 1<<20)
		for next := int64(0); ; {
			k, err := response.Body.Read(buffer)
			n += int64(k)
			if n >= next {
				peak, next = max(peak, c.residentKiB()), next+64<<20
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		response.Body.Close()
		took := time.Since(start)
		rate := float64(n) / (1 << 20) / took.Seconds()
		if n < logMiB<<20 {
			b.Fatalf("%d bytes came", n)
		}
		b.ReportMetric(rate, "MiB/s")
		b.ReportMetric(float64(peak-before)/1024, "MiB-more-RSS")
		row("`logs` of 1 GiB", fmt.Sprintf("%.0f MiB/s, at most %d MiB more than idle", rate, (peak-before)/1024), "≥ 200 MB/s, flat")
	}
}

// longLog appends lines to a log until it holds logMiB of output.
func longLog(b *testing.B, path string) {
	b.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	stamp := time.Now().UTC().Format(time.RFC3339Nano)
	text := strings.Repeat("0123456789", 10)[:99] + "\n" // as long as lines of real logs
	for range (logMiB<<20)/len(text) + 1 {
		fmt.Fprintf(w, "%s stdout F %s", stamp, text)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}
