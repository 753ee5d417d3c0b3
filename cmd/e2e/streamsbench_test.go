package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkPortForward measures a download of 256 MiB from a pod on one
// connection: through both clients and, in turns with them, by plain TCP to the
// pod's address.
func BenchmarkPortForward(b *testing.B) {
	c := newCluster(b)
	c.push(map[string]string{"reader.yaml": reader})
	pods := c.running("reader", 1, 60*time.Second)
	c.eventually(60*time.Second, "the pod's server serves", func() error {
		_, err := c.pawl("exec", "reader", "-c", "web", "--", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/big")
		return err
	})
	at := map[string]string{"plain TCP": net.JoinHostPort(pods["reader"].Status.PodIP, "8080")}
	for name, argv := range c.both("port-forward", "reader", ":8080") {
		_, _, out := c.client(argv)
		c.eventually(20*time.Second, name+" listens", func() error {
			before, _, ok := strings.Cut(out.String(), " -> ")
			if !ok {
				return fmt.Errorf("it says %q", out.String())
			}
			at[name] = strings.TrimPrefix(before, "Forwarding from ")
			return nil
		})
	}
	for b.Loop() {
		rate := map[string]float64{}
		peak := c.peakMemory(func() {
			for range 5 {
				for name, address := range at {
					rate[name] = max(rate[name], download(b, address))
				}
			}
		})
		ratio := rate["pawl"] / rate["plain TCP"]
		b.ReportMetric(rate["pawl"], "MB/s")
		b.ReportMetric(ratio, "×TCP")
		row("`pawl port-forward`, 256 MiB on one connection", fmt.Sprintf("%.0f MB/s, %.2f × plain TCP (%.0f MB/s); `kubectl` %.0f MB/s; at most %d MiB more than idle",
			rate["pawl"], ratio, rate["plain TCP"], rate["kubectl"], peak), "≥ 100 MB/s")
	}
}

// download fetches the pod's big file and returns MB/s.
func download(b *testing.B, address string) float64 {
	b.Helper()
	began := time.Now()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /big HTTP/1.0\r\n\r\n")
	n, err := io.Copy(io.Discard, conn)
	if err != nil || n < 256<<20 {
		b.Fatalf("%s: %d bytes: %v", address, n, err)
	}
	return float64(n) / time.Since(began).Seconds() / 1e6
}

// peakMemory is by how much the daemon grew at most while f ran, in MiB.
func (c *cluster) peakMemory(f func()) int {
	c.t.Helper()
	before := c.residentKiB()
	var peak atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				peak.Store(max(peak.Load(), int64(c.residentKiB())))
			}
		}
	}()
	f()
	close(stop)
	<-stopped
	return max(0, int(peak.Load())-before) >> 10
}

// BenchmarkCopy measures `pawl cp` of a file of 1 GiB and of 10,000 files of
// 2 KiB, into a container and out of it, beside cp on this machine.
func BenchmarkCopy(b *testing.B) {
	c := newCluster(b)
	c.push(map[string]string{"talk.yaml": barePod("talk", talker, "")})
	c.running("talk", 1, 60*time.Second)
	big, many := filepath.Join(c.dir, "big"), filepath.Join(c.dir, "many")
	if out, err := exec.Command("sh", "-c", fmt.Sprintf("head -c %d /dev/urandom > %s", 1<<30, big)).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for i := range 10_000 {
		name := filepath.Join(many, fmt.Sprint(i%100), fmt.Sprint(i))
		if i < 100 {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(name, make([]byte, 2<<10), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		for _, what := range []struct{ name, from string }{{"1 GiB", big}, {"10,000 files", many}} {
			back := filepath.Join(c.dir, "back")
			timed := func(argv ...string) time.Duration {
				began := time.Now()
				if out, err := c.command(5*time.Minute, "", argv[0], argv[1:]...); err != nil {
					b.Fatalf("%q: %v\n%s", argv, err, out)
				}
				return time.Since(began)
			}
			var in, out time.Duration
			peak := c.peakMemory(func() {
				in = timed(pawlBin, "cp", what.from, "talk:/tmp/x")
				out = timed(pawlBin, "cp", "talk:/tmp/x", back)
			})
			if text, err := exec.Command("diff", "-r", what.from, back).CombinedOutput(); err != nil {
				b.Fatalf("%v\n%.1000s", err, text)
			}
			local := timed("cp", "-r", what.from, filepath.Join(c.dir, "local"))
			timed("rm", "-rf", back, filepath.Join(c.dir, "local"))
			timed(pawlBin, "exec", "talk", "--", "rm", "-rf", "/tmp/x")
			b.ReportMetric(in.Seconds(), strings.ReplaceAll(what.name, " ", "-")+"-in-s")
			b.ReportMetric(out.Seconds(), strings.ReplaceAll(what.name, " ", "-")+"-out-s")
			row("`pawl cp` of "+what.name, fmt.Sprintf("in %.1f s, out %.1f s (cp: %.1f s); at most %d MiB more than idle", in.Seconds(), out.Seconds(), local.Seconds(), peak), "flat memory")
		}
	}
}
