package containerd

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"
)

// BenchmarkStart measures a pod of one container, sandbox included, beside the
// same by the library alone, in turns, as machines are noisy.
func BenchmarkStart(b *testing.B) {
	g := newRig(b)
	g.image("busybox:1.37")
	raw := newRawClient(b)
	var ours, sandboxes, raws []time.Duration
	for b.Loop() {
		p := g.pod("bench")
		p.add("main", "sleep", "1000000")
		began := time.Now()
		p.sandbox()
		sandboxes = append(sandboxes, time.Since(began))
		p.start("main", 0)
		ours = append(ours, time.Since(began))
		p.remove()

		began = time.Now()
		remove := raw.start(b)
		raws = append(raws, time.Since(began))
		remove()
	}
	b.ReportMetric(ms(median(ours)), "ms/pod")
	b.ReportMetric(ms(median(sandboxes)), "ms/sandbox")
	b.ReportMetric(ms(median(raws)), "ms/raw")
}

// BenchmarkParallel starts and then removes pods, 8 at a time, and the same by
// the library alone.
func BenchmarkParallel(b *testing.B) {
	const n, wide = 64, 8
	g := newRig(b)
	g.image("busybox:1.37")
	raw := newRawClient(b)
	var start, remove, rawStart, rawRemove time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		pods := make([]*testPod, n)
		for i := range pods {
			pods[i] = g.pod(fmt.Sprintf("bench%d", i))
			pods[i].add("main", "sleep", "1000000")
		}
		start += parallel(wide, n, func(i int) { pods[i].sandbox(); pods[i].start("main", 0) })
		remove += parallel(wide, n, func(i int) { pods[i].remove() })

		removers := make([]func(), n)
		rawStart += parallel(wide, n, func(i int) { removers[i] = raw.start(b) })
		rawRemove += parallel(wide, n, func(i int) { removers[i]() })
	}
	rate := func(d time.Duration) float64 { return float64(rounds*n) / d.Seconds() }
	b.ReportMetric(rate(start), "starts/s")
	b.ReportMetric(rate(remove), "removes/s")
	b.ReportMetric(rate(rawStart), "rawstarts/s")
	b.ReportMetric(rate(rawRemove), "rawremoves/s")
}

func parallel(wide, n int, f func(int)) time.Duration {
	began := time.Now()
	var wg sync.WaitGroup
	next := make(chan int)
	for range wide {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return time.Since(began)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// rawClient uses the library as its documentation shows.
type rawClient struct {
	*client.Client
	ctx    context.Context
	image  client.Image
	parent string
	mu     sync.Mutex
	n      int
}

func newRawClient(tb testing.TB) *rawClient {
	c, err := dial(testDaemon.Address())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	r := &rawClient{Client: c, ctx: namespaces.WithNamespace(context.Background(), namespace)}
	if r.image, err = c.GetImage(r.ctx, "docker.io/library/busybox:1.37"); err != nil {
		tb.Fatal(err)
	}
	ids, err := r.image.RootFS(r.ctx)
	if err != nil {
		tb.Fatal(err)
	}
	r.parent = identity.ChainID(ids).String()
	return r
}

func (r *rawClient) start(tb testing.TB) (remove func()) {
	r.mu.Lock()
	r.n++
	id := fmt.Sprintf("raw-%d-%d", unix.Getpid(), r.n)
	r.mu.Unlock()
	c, err := r.NewContainer(r.ctx, id,
		client.WithImage(r.image), client.WithSnapshotter("overlayfs"), client.WithNewSnapshot(id, r.image),
		client.WithNewSpec(oci.WithImageConfigArgs(r.image, []string{"sleep", "1000000"})))
	if err != nil {
		tb.Error(err)
		return func() {}
	}
	t, err := c.NewTask(r.ctx, cio.NullIO)
	if err != nil {
		tb.Error(err)
		return func() {}
	}
	if err := t.Start(r.ctx); err != nil {
		tb.Error(err)
	}
	return func() {
		wait, err := t.Wait(r.ctx)
		if err != nil {
			tb.Error(err)
			return
		}
		if err := t.Kill(r.ctx, unix.SIGKILL); err != nil {
			tb.Error(err)
		}
		<-wait
		if _, err := t.Delete(r.ctx); err != nil {
			tb.Error(err)
		}
		if err := c.Delete(r.ctx, client.WithSnapshotCleanup); err != nil {
			tb.Error(err)
		}
	}
}
