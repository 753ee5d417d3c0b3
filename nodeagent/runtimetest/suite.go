package runtimetest

import (
	"context"
	"errors"
	"fmt"
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

// A Subject is the runtime under test.
type Subject struct {
	// Open returns a handle on the runtime. Every handle is of one instance and
	// sees what those before it made, as a restarted agent does. One is open at a
	// time.
	Open func(t *testing.T) nodeagent.Runtime
	// Close gives a handle back, after its Watch has ended; nil: there is no need to.
	Close func(nodeagent.Runtime)
	// Image is an image that can be had with policy IfNotPresent and has /bin/sh.
	Image string
}

// patience is how long something that happens on its own may take to be seen.
const patience = 30 * time.Second

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	for name, test := range map[string]func(*testing.T, *bench){
		"Nothing":       testNothing,
		"Lifecycle":     testLifecycle,
		"Idempotent":    testIdempotent,
		"ExitCode":      testExitCode,
		"Env":           testEnv,
		"StartError":    testStartError,
		"Kill":          testKill,
		"Reopened":      testReopened,
		"Attempts":      testAttempts,
		"TwoContainers": testTwoContainers,
		"NewSandbox":    testNewSandbox,
		"Image":         testImage,
		"Log":           testLog,
		"Command":       testCommand,
	} {
		t.Run(name, func(t *testing.T) { test(t, newBench(t, s)) })
	}
}

// A bench is one test's pod on the runtime.
type bench struct {
	t    *testing.T
	s    Subject
	ctx  context.Context
	rt   nodeagent.Runtime
	pod  *corev1.Pod
	wake chan struct{} // one token
	shut func()        // ends the Watch and gives the handle back
}

func newBench(t *testing.T, s Subject) *bench {
	b := &bench{t: t, s: s, ctx: context.Background(), wake: make(chan struct{}, 1)}
	b.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: "suite", Namespace: "default",
		UID: types.UID(fmt.Sprintf("5c1e0000-0000-4000-8000-%012x", time.Now().UnixNano()&0xffffffffffff)),
	}}
	b.pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	b.open()
	t.Cleanup(func() {
		b.clean()
		b.shut()
	})
	return b
}

// open takes a new handle and watches by it.
func (b *bench) open() {
	rt := b.s.Open(b.t)
	b.rt = rt
	ctx, cancel := context.WithCancel(b.ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		if err := rt.Watch(ctx, b.changed); err != nil && ctx.Err() == nil {
			b.t.Errorf("Watch: %v", err)
		}
	})
	b.shut = func() {
		cancel()
		watching.Wait()
		if b.s.Close != nil {
			b.s.Close(rt)
		}
	}
}

func (b *bench) changed(uid types.UID) {
	if uid != "" && uid != b.pod.UID {
		return
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// clean removes what the test left, also after a failure.
func (b *bench) clean() {
	seen, err := b.rt.SeenPod(b.ctx, b.pod.UID)
	if err != nil {
		b.t.Errorf("clean up: %v", err)
		return
	}
	for _, c := range seen.Containers {
		if c.State == pod.ContainerRunning {
			_ = b.rt.Signal(b.ctx, c.ID, "KILL", time.Now())
		}
	}
	b.await("everything has exited", func(s pod.Seen) bool { return count(s, pod.ContainerRunning) == 0 })
	for _, c := range b.look().Containers {
		b.must(b.rt.Remove(b.ctx, c.ID, true))
	}
	b.must(b.rt.RemoveSandbox(b.ctx, b.pod.UID))
	if s := b.look(); len(s.Containers) > 0 || s.Sandbox.Ready {
		b.t.Errorf("RemoveSandbox left %+v", s)
	}
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Error(err)
	}
}

func (b *bench) look() pod.Seen {
	b.t.Helper()
	s, err := b.rt.SeenPod(b.ctx, b.pod.UID)
	if err != nil {
		b.t.Fatalf("SeenPod: %v", err)
	}
	if s.UID != b.pod.UID {
		b.t.Fatalf("SeenPod of %s answers for %q", b.pod.UID, s.UID)
	}
	return s
}

// await looks whenever Watch says so, until is is true.
func (b *bench) await(what string, is func(pod.Seen) bool) pod.Seen {
	b.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		s := b.look()
		if is(s) {
			return s
		}
		select {
		case <-b.wake:
		case <-limit.C:
			b.t.Fatalf("Watch did not tell, or it did not happen within %v: %s; there is %+v", patience, what, s)
		}
	}
}

func count(s pod.Seen, state pod.ContainerState) (n int) {
	for _, c := range s.Containers {
		if c.State == state {
			n++
		}
	}
	return n
}

func (b *bench) image() nodeagent.Image {
	b.t.Helper()
	img, err := b.rt.Image(b.ctx, nodeagent.ImageRequest{Image: b.s.Image, Policy: corev1.PullIfNotPresent})
	if err != nil {
		b.t.Fatalf("Image: %v", err)
	}
	return img
}

func (b *bench) sandbox() pod.Sandbox {
	b.t.Helper()
	s, err := b.rt.CreateSandbox(b.ctx, b.pod)
	if err != nil {
		b.t.Fatalf("CreateSandbox: %v", err)
	}
	return s
}

// add puts a container into the pod's spec.
func (b *bench) add(name string, c Command) {
	b.pod.Spec.Containers = append(b.pod.Spec.Containers, corev1.Container{
		Name: name, Image: b.s.Image, ImagePullPolicy: corev1.PullIfNotPresent, Command: c,
	})
}

func (b *bench) start(name string, attempt int, env ...string) pod.Container {
	b.t.Helper()
	var spec *corev1.Container
	for i := range b.pod.Spec.Containers {
		if b.pod.Spec.Containers[i].Name == name {
			spec = &b.pod.Spec.Containers[i]
		}
	}
	c, err := b.rt.Start(b.ctx, nodeagent.StartRequest{
		Pod: b.pod, Container: spec, Attempt: attempt, Backoff: attempt, Image: b.image(), Env: env,
	})
	if err != nil {
		b.t.Fatalf("Start %s#%d: %v", name, attempt, err)
	}
	return c
}

func testNothing(t *testing.T, b *bench) {
	if s := b.look(); s.Sandbox.Ready || len(s.Containers) > 0 {
		t.Errorf("an unknown uid has %+v", s)
	}
	b.must(b.rt.Remove(b.ctx, "no-such-container", true))
	b.must(b.rt.RemoveSandbox(b.ctx, b.pod.UID))
	if err := b.rt.Signal(b.ctx, "no-such-container", "KILL", time.Now()); err != nil && !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("Signal to no container: %v, want nil or ErrNotFound", err)
	}
}

func testLifecycle(t *testing.T, b *bench) {
	b.add("web", HonoursTERM)
	sb := b.sandbox()
	if !sb.Ready || sb.IP == "" {
		t.Errorf("CreateSandbox returned %+v, want Ready with an address", sb)
	}
	c := b.start("web", 0)
	if c.State != pod.ContainerRunning || c.Name != "web" || c.ID == "" {
		t.Fatalf("Start returned %+v", c)
	}
	s := b.await("it runs", func(s pod.Seen) bool { return count(s, pod.ContainerRunning) == 1 })
	got := s.Containers[0]
	if got.ID != c.ID || got.Image != b.s.Image || got.ImageID == "" || got.StartedAt.IsZero() || got.CreatedAt.IsZero() || got.LogPath == "" || got.Init {
		t.Errorf("seen %+v", got)
	}
	if got.CreatedAt.Before(s.Sandbox.CreatedAt) {
		t.Errorf("container created at %v, before its sandbox at %v", got.CreatedAt, s.Sandbox.CreatedAt)
	}
	if s.Sandbox.IP != sb.IP {
		t.Errorf("seen address %q, created %q", s.Sandbox.IP, sb.IP)
	}
	at := time.Now()
	b.must(b.rt.Signal(b.ctx, c.ID, "", at))
	s = b.await("it exited", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 1 })
	got = s.Containers[0]
	if got.ExitCode != 0 || got.FinishedAt.Before(got.StartedAt) || got.StopRequested.Sub(at).Abs() > time.Second {
		t.Errorf("after its stop, asked for at %v: %+v", at, got)
	}
	b.must(b.rt.Remove(b.ctx, c.ID, true))
	if s := b.look(); len(s.Containers) > 0 || !s.Sandbox.Ready {
		t.Errorf("after Remove: %+v", s)
	}
}

func testIdempotent(t *testing.T, b *bench) {
	b.add("web", HonoursTERM)
	first, second := b.sandbox(), b.sandbox()
	if first.IP != second.IP || !first.CreatedAt.Equal(second.CreatedAt) {
		t.Errorf("CreateSandbox made another: %+v, then %+v", first, second)
	}
	one, two := b.start("web", 0), b.start("web", 0)
	if one.ID != two.ID || len(b.look().Containers) != 1 {
		t.Errorf("Start of one attempt made two containers: %s and %s", one.ID, two.ID)
	}
	b.must(b.rt.Signal(b.ctx, one.ID, "KILL", time.Now()))
	b.await("it exited", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 1 })
	for range 2 {
		b.must(b.rt.Remove(b.ctx, one.ID, true))
	}
	for range 2 {
		b.must(b.rt.RemoveSandbox(b.ctx, b.pod.UID))
	}
}

func testExitCode(t *testing.T, b *bench) {
	b.add("web", Exits3)
	b.sandbox()
	b.start("web", 0)
	s := b.await("it exited", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 1 })
	if c := s.Containers[0]; c.ExitCode != 3 || c.OOMKilled || c.StartError != "" || !c.StopRequested.IsZero() {
		t.Errorf("seen %+v, want exit code 3", c)
	}
}

func testEnv(t *testing.T, b *bench) {
	b.add("good", Greets)
	b.add("bad", Greets)
	b.sandbox()
	b.start("good", 0, "GREETING=hello")
	b.start("bad", 0, "GREETING=hello", "GREETING=bye")
	s := b.await("both exited", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 2 })
	for _, c := range s.Containers {
		if want := map[string]int32{"good": 0, "bad": 1}[c.Name]; c.ExitCode != want {
			t.Errorf("%s exited with %d, want %d", c.Name, c.ExitCode, want)
		}
	}
}

func testStartError(t *testing.T, b *bench) {
	b.add("web", Missing)
	b.sandbox()
	b.start("web", 0)
	s := b.await("it failed to start", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 1 })
	if c := s.Containers[0]; c.ExitCode != 128 || c.StartError == "" || c.FinishedAt.IsZero() {
		t.Errorf("seen %+v, want exit code 128 and a StartError", c)
	}
}

func testKill(t *testing.T, b *bench) {
	b.add("web", IgnoresTERM)
	b.sandbox()
	c := b.start("web", 0)
	first := time.Now()
	b.must(b.rt.Signal(b.ctx, c.ID, "", first))
	b.must(b.rt.Signal(b.ctx, c.ID, "KILL", first.Add(time.Minute)))
	s := b.await("it was killed", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 1 })
	got := s.Containers[0]
	if got.ExitCode != 137 || got.StopRequested.Sub(first).Abs() > time.Second {
		t.Errorf("seen %+v, want exit code 137 and its stop requested at %v", got, first)
	}
	b.must(b.rt.Signal(b.ctx, c.ID, "KILL", time.Now())) // it is gone already
	// A kill needs nothing written down, as there may be no room to write.
	c = b.start("web", 1)
	b.must(b.rt.Signal(b.ctx, c.ID, "KILL", first))
	s = b.await("the next was killed", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 2 })
	if got := s.Containers[1]; got.ExitCode != 137 || !got.StopRequested.IsZero() {
		t.Errorf("seen %+v, want exit code 137 and that it was not asked to stop", got)
	}
}

func testReopened(t *testing.T, b *bench) {
	b.add("web", HonoursTERM)
	b.sandbox()
	c := b.start("web", 0)
	b.shut()
	b.open()
	all, err := b.rt.Seen(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.UID != b.pod.UID {
			continue
		}
		if s.Key != (schema.PodKey{Namespace: "default", Name: "suite"}) || !s.Sandbox.Ready || len(s.Containers) != 1 ||
			s.Containers[0].ID != c.ID || s.Containers[0].State != pod.ContainerRunning || !s.Containers[0].Sandbox.Equal(s.Sandbox.CreatedAt) {
			t.Errorf("another handle sees %+v", s)
		}
		return
	}
	t.Errorf("another handle does not see the pod: %+v", all)
}

func testAttempts(t *testing.T, b *bench) {
	b.add("web", Exits3)
	b.sandbox()
	for attempt := range 2 {
		b.start("web", attempt)
		b.await("it exited", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == attempt+1 })
	}
	s := b.look()
	for i, c := range s.Containers {
		if c.Attempt != i || c.Backoff != i || !c.Sandbox.Equal(s.Sandbox.CreatedAt) || c.Sandbox.IsZero() {
			t.Errorf("seen %+v as number %d in the sandbox of %v", c, i, s.Sandbox.CreatedAt)
		}
	}
	if s.Containers[0].ID == s.Containers[1].ID || s.Containers[0].LogPath == s.Containers[1].LogPath {
		t.Errorf("two attempts share an id or a log: %+v", s.Containers)
	}
	b.must(b.rt.Remove(b.ctx, s.Containers[0].ID, true))
	if left := b.look().Containers; len(left) != 1 || left[0].Attempt != 1 {
		t.Errorf("after the first attempt's removal: %+v", left)
	}
}

func testTwoContainers(t *testing.T, b *bench) {
	b.add("a", HonoursTERM)
	b.add("b", HonoursTERM)
	b.sandbox()
	a := b.start("a", 0)
	b.start("b", 0)
	b.must(b.rt.Signal(b.ctx, a.ID, "KILL", time.Now()))
	s := b.await("a exited", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 1 })
	if count(s, pod.ContainerRunning) != 1 || s.Containers[0].Name != "a" || s.Containers[1].State != pod.ContainerRunning {
		t.Errorf("after a was killed: %+v", s.Containers)
	}
	b.must(b.rt.Remove(b.ctx, a.ID, true))
	if s := b.look(); count(s, pod.ContainerRunning) != 1 {
		t.Errorf("the removal of a touched b: %+v", s.Containers)
	}
}

func testNewSandbox(t *testing.T, b *bench) {
	first := b.sandbox()
	b.must(b.rt.RemoveSandbox(b.ctx, b.pod.UID))
	if second := b.sandbox(); !second.CreatedAt.After(first.CreatedAt) {
		t.Errorf("a new sandbox says it was created at %v, the old one at %v", second.CreatedAt, first.CreatedAt)
	}
}

func testImage(t *testing.T, b *bench) {
	if img := b.image(); img.Ref == "" || img.ID == "" {
		t.Errorf("Image returned %+v", img)
	}
	_, err := b.rt.Image(b.ctx, nodeagent.ImageRequest{Image: "docker.io/library/never-heard-of:1", Policy: corev1.PullNever})
	if !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("an image that is not here with policy Never: %v, want ErrNotFound", err)
	}
}
