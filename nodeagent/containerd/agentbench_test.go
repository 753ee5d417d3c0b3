package containerd

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
)

// BenchmarkAgentStart measures a pod of one container from its assignment until
// the agent reports it running, and in turns with it what containerd takes to
// create and start a container of the same spec (seccomp, capabilities, mounts,
// a namespace of each kind of its own), with nobody in between. Say
// -benchtime 30x for a median of 30 each.
func BenchmarkAgentStart(b *testing.B) {
	a, bare := newAgentBench(b)
	var ours, bares, gone []time.Duration
	for i := 0; b.Loop(); i++ {
		p := a.sleeper(fmt.Sprintf("bench%d", i))
		began := time.Now()
		a.ctl.delta([]*corev1.Pod{p})
		a.ctl.await(a.ctl.running, p)
		ours = append(ours, time.Since(began))
		began = time.Now()
		a.delete(1, p)
		a.ctl.await(a.ctl.gone, p)
		gone = append(gone, time.Since(began))
		a.ctl.delta(nil, p)

		began = time.Now()
		remove := bare.start(b)
		bares = append(bares, time.Since(began))
		remove()
	}
	b.ReportMetric(ms(median(ours)), "ms/pod")
	b.ReportMetric(ms(median(bares)), "ms/bare")
	b.ReportMetric(float64(median(ours))/float64(median(bares)), "pod/bare")
	b.ReportMetric(ms(slices.Min(ours)), "ms/pod-min")
	b.ReportMetric(ms(slices.Min(bares)), "ms/bare-min")
	b.ReportMetric(ms(median(gone)), "ms/delete")
}

// BenchmarkAgentPods assigns 100 pods at once and deletes them at once, and in
// turns with it starts and removes as many bare containers, 8 at a time. With
// PAWL_BENCH_IDLE it also says what the agent takes with 110 pods and nothing to do.
func BenchmarkAgentPods(b *testing.B) {
	const n = 100
	a, bare := newAgentBench(b)
	var up, down, bareUp, bareDown []float64
	for round := 0; b.Loop(); round++ {
		pods := make([]*corev1.Pod, n)
		for i := range pods {
			pods[i] = a.sleeper(fmt.Sprintf("bench%d-%d", round, i))
		}
		began := time.Now()
		a.ctl.delta(pods)
		a.ctl.await(a.ctl.running, pods...)
		up = append(up, time.Since(began).Seconds())
		time.Sleep(200 * time.Millisecond) // their shells come to their traps
		began = time.Now()
		a.delete(3, pods...)
		a.ctl.await(a.ctl.gone, pods...)
		down = append(down, time.Since(began).Seconds())
		a.ctl.delta(nil, pods...)

		removers := make([]func(), n)
		bareUp = append(bareUp, parallel(8, n, func(i int) { removers[i] = bare.start(b) }).Seconds())
		bareDown = append(bareDown, parallel(8, n, func(i int) { removers[i]() }).Seconds())
	}
	b.ReportMetric(n/slices.Min(up), "pods/s")
	b.ReportMetric(n/slices.Min(bareUp), "bare/s")
	b.ReportMetric(slices.Min(bareUp)/slices.Min(up), "pods/bare")
	b.ReportMetric(slices.Min(down), "s/delete-100")
	b.ReportMetric(slices.Min(bareDown), "s/bare-delete-100")
	if os.Getenv("PAWL_BENCH_IDLE") != "" {
		a.idle(b)
	}
}

func newAgentBench(b *testing.B) (*agentRig, *bareClient) {
	g := newRig(b)
	a := newAgentRig(b, g)
	a.begin(true)
	warm := a.sleeper("warm")
	a.run(warm)
	return a, newBareClient(b, a, warm)
}

// idle measures this process, which is the agent and the little that watches it.
func (a *agentRig) idle(b *testing.B) {
	pods := make([]*corev1.Pod, 110)
	for i := range pods {
		pods[i] = a.sleeper(fmt.Sprintf("idle%d", i))
	}
	a.ctl.delta(pods)
	a.ctl.await(a.ctl.running, pods...)
	time.Sleep(10 * time.Second)
	before, began := cpuTime(b), time.Now()
	time.Sleep(30 * time.Second)
	b.ReportMetric(100*(cpuTime(b)-before).Seconds()/time.Since(began).Seconds(), "%-of-a-core")
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			kib, _ := strconv.Atoi(f[1])
			b.ReportMetric(float64(kib)/1024, "MiB-RSS")
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "MiB-heap")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
	a.delete(3, pods...)
	a.ctl.await(a.ctl.gone, pods...)
	a.ctl.delta(nil, pods...)
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// await waits until every pod is in the set.
func (l *listed) await(set map[types.UID]time.Time, pods ...*corev1.Pod) {
	for {
		l.mu.Lock()
		changed := l.changed
		done := !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return set[p.UID].IsZero() })
		l.mu.Unlock()
		if done {
			return
		}
		<-changed
	}
}

// A bareClient makes containers of the spec of a pod's, by containerd's client.
type bareClient struct {
	*rawClient
	spec *specs.Spec
}

func newBareClient(b *testing.B, a *agentRig, like *corev1.Pod) *bareClient {
	q := nodeagent.StartRequest{Pod: like, Container: &like.Spec.Containers[0], Image: a.image("busybox:1.37")}
	sandbox, err := a.rt.sandbox(like.UID)
	if err != nil {
		b.Fatal(err)
	}
	image, err := a.rt.images.find(a.ctx, q.Image.Ref)
	if err != nil {
		b.Fatal(err)
	}
	spec, err := a.rt.spec(a.ctx, q, image, sandbox, "x")
	if err != nil {
		b.Fatal(err)
	}
	for i := range spec.Linux.Namespaces {
		spec.Linux.Namespaces[i].Path = "" // one of its own
	}
	spec.Linux.CgroupsPath, spec.Annotations = "", nil
	return &bareClient{rawClient: newRawClient(b), spec: spec}
}

func (r *bareClient) start(tb testing.TB) (remove func()) {
	r.mu.Lock()
	r.n++
	id := fmt.Sprintf("bare-%d-%d", unix.Getpid(), r.n)
	r.mu.Unlock()
	c, err := r.NewContainer(r.ctx, id,
		client.WithImage(r.image), client.WithSnapshotter("overlayfs"), client.WithNewSnapshot(id, r.image),
		client.WithSpec(r.spec))
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
	return sync.OnceFunc(func() { r.remove(tb, c, t) })
}

func (r *bareClient) remove(tb testing.TB, c client.Container, t client.Task) {
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
