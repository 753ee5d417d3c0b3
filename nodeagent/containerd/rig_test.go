package containerd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

const patience = 30 * time.Second

// testNetwork gives out addresses and checks that it is asked rightly.
type testNetwork struct {
	mu   sync.Mutex
	held map[types.UID]string
	next int
}

func (n *testNetwork) Attach(_ context.Context, uid types.UID, netns string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !pinned(netns) {
		return "", fmt.Errorf("%s is no namespace", netns)
	}
	if n.held[uid] == "" {
		n.next++
		n.held[uid] = fmt.Sprintf("10.99.%d.%d", n.next/250, n.next%250+1)
	}
	return n.held[uid], nil
}

func (n *testNetwork) Detach(_ context.Context, uid types.UID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.held, uid)
	return nil
}

// A rig is one instance on the tests' containerd.
type rig struct {
	tb      testing.TB
	ctx     context.Context
	opts    Options
	network *testNetwork
	rt      *Runtime
	shut    func()

	mu    sync.Mutex
	wakes map[types.UID]chan struct{}
}

// serial numbers instances.
var serial = func() func() int {
	var mu sync.Mutex
	n := 0
	return func() int { mu.Lock(); defer mu.Unlock(); n++; return n }
}()

func newRig(tb testing.TB) *rig {
	tb.Helper()
	n := serial()
	name := fmt.Sprintf("test%d-%d", os.Getpid(), n)
	g := &rig{tb: tb, network: &testNetwork{held: map[types.UID]string{}}, wakes: map[types.UID]chan struct{}{}}
	within := 5 * time.Minute
	if _, measured := tb.(*testing.B); measured {
		within = time.Hour // many rounds, on a busy machine
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	g.ctx = ctx
	g.opts = Options{
		Address: testDaemon.Address(), State: testDaemon.State(), Instance: name, Network: g.network,
		DataDir: filepath.Join(testDir, "d", fmt.Sprint(n)), RunDir: filepath.Join(testDir, "r", fmt.Sprint(n)),
		Mirrors: map[string][]string{"docker.io": {testRegistry.URL}},
		Logger:  slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	g.open()
	tb.Cleanup(func() {
		defer cancel()
		clean, done := context.WithTimeout(context.Background(), time.Minute)
		defer done()
		if err := g.rt.DestroyAll(clean); err != nil {
			tb.Errorf("clean up: %v", err)
		}
		g.shut()
		if len(g.network.held) > 0 {
			tb.Errorf("addresses are left: %v", g.network.held)
		}
	})
	return g
}

// open makes a Runtime as a started agent does.
func (g *rig) open() {
	g.tb.Helper()
	rt, err := New(g.opts)
	if err != nil {
		g.tb.Fatal(err)
	}
	g.rt = rt
	ctx, cancel := context.WithCancel(g.ctx)
	var watching sync.WaitGroup
	watched := make(chan struct{})
	var once sync.Once
	watching.Go(func() {
		err := rt.Watch(ctx, func(uid types.UID) {
			if uid == "" {
				once.Do(func() { close(watched) })
			}
			g.changed(uid)
		})
		if ctx.Err() == nil {
			g.tb.Errorf("Watch: %v", err)
		}
	})
	select {
	case <-watched:
	case <-time.After(patience):
		g.tb.Fatal("Watch does not begin")
	}
	g.shut = func() {
		cancel()
		watching.Wait()
		if err := rt.Close(); err != nil {
			g.tb.Errorf("Close: %v", err)
		}
	}
}

// reopen is a restart of the agent.
func (g *rig) reopen() {
	g.shut()
	g.open()
}

func (g *rig) changed(uid types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for of, c := range g.wakes {
		if uid == "" || uid == of {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

// A testPod is a pod in the making.
type testPod struct {
	*rig
	*corev1.Pod
	wake chan struct{}
}

func (g *rig) pod(name string) *testPod {
	n := serial()
	p := &testPod{rig: g, wake: make(chan struct{}, 1), Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: "default", UID: types.UID(fmt.Sprintf("%08x-0000-4000-8000-%012x", n, os.Getpid())),
	}}}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wakes[p.UID] = p.wake
	return p
}

func (p *testPod) add(name string, command ...string) *corev1.Container {
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Image: "busybox:1.37", Command: command})
	return &p.Spec.Containers[len(p.Spec.Containers)-1]
}

func (p *testPod) sandbox() pod.Sandbox {
	p.tb.Helper()
	s, err := p.rt.CreateSandbox(p.ctx, p.Pod)
	if err != nil {
		p.tb.Fatalf("CreateSandbox: %v", err)
	}
	return s
}

func (g *rig) image(name string) nodeagent.Image {
	g.tb.Helper()
	img, err := g.rt.Image(g.ctx, nodeagent.ImageRequest{Image: name, Policy: corev1.PullIfNotPresent})
	if err != nil {
		g.tb.Fatalf("Image: %v", err)
	}
	return img
}

func (p *testPod) request(name string, attempt int) nodeagent.StartRequest {
	p.tb.Helper()
	for i := range p.Spec.Containers {
		if c := &p.Spec.Containers[i]; c.Name == name {
			return nodeagent.StartRequest{Pod: p.Pod, Container: c, Attempt: attempt, Image: p.image(c.Image)}
		}
	}
	p.tb.Fatalf("no container %s", name)
	return nodeagent.StartRequest{}
}

func (p *testPod) start(name string, attempt int) pod.Container {
	p.tb.Helper()
	c, err := p.rt.Start(p.ctx, p.request(name, attempt))
	if err != nil {
		p.tb.Fatalf("Start: %v", err)
	}
	return c
}

func (p *testPod) look() pod.Seen {
	p.tb.Helper()
	s, err := p.rt.SeenPod(p.ctx, p.UID)
	if err != nil {
		p.tb.Fatalf("SeenPod: %v", err)
	}
	return s
}

// await looks whenever Watch says so.
func (p *testPod) await(what string, is func(pod.Seen) bool) pod.Seen {
	p.tb.Helper()
	limit := time.After(patience)
	for {
		s := p.look()
		if is(s) {
			return s
		}
		select {
		case <-p.wake:
		case <-limit:
			p.tb.Fatalf("not within %s: %s; there is %+v", patience, what, s)
		}
	}
}

// exit awaits the end of every container and returns the first.
func (p *testPod) exit() pod.Container {
	p.tb.Helper()
	s := p.await("all exited", func(s pod.Seen) bool {
		for _, c := range s.Containers {
			if c.State != pod.ContainerExited {
				return false
			}
		}
		return len(s.Containers) > 0
	})
	return s.Containers[0]
}

// run runs one command to its end and returns how it ended and what it wrote.
func (p *testPod) run() (pod.Container, string) {
	p.tb.Helper()
	p.sandbox()
	p.start(p.Spec.Containers[0].Name, 0)
	c := p.exit()
	return c, p.output(c)
}

// output is a dead container's log without times and tags.
func (p *testPod) output(c pod.Container) string {
	p.tb.Helper()
	p.rt.drained(c.ID)
	return readLog(p.tb, c.LogPath)
}

func readLog(tb testing.TB, path string) string {
	tb.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(raw)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		f := strings.SplitN(line, " ", 4)
		if len(f) != 4 {
			tb.Fatalf("log line %q", line)
		}
		if f[2] == "P" {
			f[3] = strings.TrimSuffix(f[3], "\n")
		}
		b.WriteString(f[3])
	}
	return b.String()
}

func (p *testPod) remove() {
	p.tb.Helper()
	for _, c := range p.look().Containers {
		if c.State == pod.ContainerRunning {
			if err := p.rt.Signal(p.ctx, c.ID, "KILL", time.Now()); err != nil {
				p.tb.Fatal(err)
			}
		}
	}
	for _, c := range p.await("all ended", func(s pod.Seen) bool {
		for _, c := range s.Containers {
			if c.State == pod.ContainerRunning {
				return false
			}
		}
		return true
	}).Containers {
		if err := p.rt.Remove(p.ctx, c.ID, true); err != nil {
			p.tb.Fatalf("Remove: %v", err)
		}
	}
	if err := p.rt.RemoveSandbox(p.ctx, p.UID); err != nil {
		p.tb.Fatalf("RemoveSandbox: %v", err)
	}
}

func podKey(p *testPod) schema.PodKey {
	return schema.PodKey{Namespace: p.Namespace, Name: p.Name}
}
