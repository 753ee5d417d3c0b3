package nodeagent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/runtimetest"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// streaming is a fake runtime with logs and commands.
type streaming struct {
	*handle
	ended chan error         // why the context of a command ended
	ports map[uint16]portUse // of every pod; not changed while the agent runs
}

type fakeLog string

func (l fakeLog) Copy(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, string(l))
	return err
}
func (fakeLog) Close() error { return nil }

func (s streaming) OpenLog(_ context.Context, id string, o *corev1.PodLogOptions) (nodeagent.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, _, c := s.find(id); c == nil {
		return nil, fmt.Errorf("no container %s: %w", id, schema.ErrNotFound)
	}
	return fakeLog(fmt.Sprintf("log of %s, timestamps %v\n", id, o.Timestamps)), nil
}

// Command knows cat, hang, missing and broken.
func (s streaming) Command(ctx context.Context, id string, c nodeagent.Command) (int, error) {
	switch c.Argv[0] {
	case "cat":
		for {
			data, err := c.Stdin(ctx)
			if errors.Is(err, io.EOF) {
				fmt.Fprintf(c.Stderr, "end in %s", id)
				return 3, nil
			}
			if err != nil {
				return 0, err
			}
			if _, err := c.Stdout.Write(data); err != nil {
				return 0, err
			}
		}
	case "size":
		size := <-c.Resize
		fmt.Fprintf(c.Stdout, "%dx%d, stderr %v", size.Width, size.Height, c.Stderr != nil)
		return 0, nil
	case "hang":
		<-ctx.Done()
		s.ended <- ctx.Err()
		return 0, ctx.Err()
	case "missing":
		return 0, &nodeagent.CommandError{Text: "OCI runtime exec failed: not there", Code: 127}
	}
	return 0, fmt.Errorf("it broke: %w", schema.ErrUnavailable)
}

// A streamRig is an agent with a fake runtime, and the control plane's side of
// its streams.
type streamRig struct {
	t       *testing.T
	world   *world
	rt      streaming
	streams *kv.Streams
	nats    *server.Server
	control *kv.Conn
	stop    func() // the agent, and wait for it
}

// overNATS is a control plane whose streams are real.
type overNATS struct {
	*control
	conn *kv.Conn
}

func (l overNATS) Run(ctx context.Context, h nodeagent.Handler) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { kv.ServeStreams(ctx, l.conn, "n1", h.(nodeagent.StreamHandler).Stream) })
	return l.control.Run(ctx, h)
}

func newStreamRig(t *testing.T, bare bool, pods ...*corev1.Pod) *streamRig {
	t.Helper()
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true, MaxPayload: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	connect := func(name string) *kv.Conn {
		c, err := kv.Connect(t.Context(), kv.ConnOptions{InProcess: ns, Name: name, InboxPrefix: "_INBOX." + name, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	ctl := newControl()
	for _, p := range pods {
		ctl.assigned[schema.PodKey{Namespace: p.Namespace, Name: p.Name}] = schema.Assignment{Node: "n1", Pod: *p}
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &streamRig{t: t, world: newWorld(), nats: ns, control: connect("control")}
	g.streams = kv.NewStreams(g.control)
	g.rt = streaming{&handle{world: g.world, end: cancel}, make(chan error, 1), map[uint16]portUse{}}
	g.world.image = func(ctx context.Context, r nodeagent.ImageRequest) (nodeagent.Image, error) {
		if strings.HasPrefix(r.Image, "slow") {
			<-ctx.Done()
			return nodeagent.Image{}, ctx.Err()
		}
		return nodeagent.Image{Ref: r.Image, ID: r.Image + "@sha256:1"}, nil
	}
	cfg := nodeagent.Config{
		Node: "n1", DataDir: t.TempDir(), RunDir: t.TempDir(), Runtime: g.rt, Volumes: heldVolumes{g.rt.handle},
		NodeIP: "192.0.2.1", Logger: slog.New(slog.DiscardHandler), Link: overNATS{ctl, connect("n1")},
	}
	if bare {
		cfg.Runtime = g.rt.handle
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := nodeagent.Run(ctx, cfg); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	wg.Go(func() { g.streams.Run(ctx) })
	g.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(g.stop)
	return g
}

// open opens a stream once the container is as far as done says.
func (g *streamRig) open(r kv.StreamRequest, done func(error) bool) (*kv.Stream, error) {
	g.t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for {
		s, err := g.streams.Open(g.t.Context(), "n1", r)
		if err == nil {
			g.t.Cleanup(func() { s.Close(nil) })
		}
		if done(err) {
			return s, err
		}
		if time.Now().After(limit) {
			g.t.Fatalf("not within 20 s; the last answer was %v", err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (g *streamRig) must(r kv.StreamRequest) *kv.Stream {
	g.t.Helper()
	s, _ := g.open(r, func(err error) bool { return err == nil })
	return s
}

// refused waits for an answer with the text.
func (g *streamRig) refused(r kv.StreamRequest, class error, text string) {
	g.t.Helper()
	_, err := g.open(r, func(err error) bool { return err != nil && err.Error() == text })
	if !errors.Is(err, class) {
		g.t.Errorf("class of %v", err)
	}
}

func logOf(p *corev1.Pod, o corev1.PodLogOptions) kv.StreamRequest {
	return kv.StreamRequest{Verb: kv.StreamLog, Pod: schema.PodKey{Namespace: p.Namespace, Name: p.Name}, UID: p.UID, Container: "web", Log: &o}
}

func execIn(p *corev1.Pod, e kv.ExecRequest) kv.StreamRequest {
	r := logOf(p, corev1.PodLogOptions{})
	r.Verb, r.Log, r.Exec = kv.StreamExec, nil, &e
	return r
}

// received is everything of a stream, by channel.
func received(t *testing.T, s *kv.Stream) (got [4]string) {
	t.Helper()
	for {
		channel, data, err := s.Recv(t.Context())
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got[channel] += string(data)
	}
}

func TestStreamLog(t *testing.T) {
	up, ended, again, slow := newPod("up"), newPod("ended", runtimetest.Exits0...), newPod("again", runtimetest.Exits3...), newPod("slow")
	ended.Spec.RestartPolicy = corev1.RestartPolicyNever
	slow.Spec.Containers[0].Image = "slow:1"
	g := newStreamRig(t, false, up, ended, again, slow)
	if got := received(t, g.must(logOf(up, corev1.PodLogOptions{Timestamps: true}))); !strings.HasPrefix(got[1], "log of c") || !strings.HasSuffix(got[1], "timestamps true\n") {
		t.Errorf("got %q", got)
	}
	g.must(logOf(ended, corev1.PodLogOptions{}))
	g.must(logOf(again, corev1.PodLogOptions{Previous: true}))
	for _, follow := range []bool{true, false} {
		g.refused(logOf(slow, corev1.PodLogOptions{Follow: follow}), schema.ErrRefused, `container "web" in pod "slow" is waiting to start: ContainerCreating`)
	}
	g.refused(logOf(up, corev1.PodLogOptions{Previous: true}), schema.ErrRefused, `previous terminated container "web" in pod "up" not found`)
	r := logOf(up, corev1.PodLogOptions{})
	r.Container = "nope"
	g.refused(r, schema.ErrRefused, "container nope is not valid for pod up")
	r = logOf(up, corev1.PodLogOptions{})
	r.UID = "another"
	g.refused(r, schema.ErrNotFound, `pods "up" not found`)
	r = logOf(up, corev1.PodLogOptions{})
	r.Verb = "dance"
	g.refused(r, schema.ErrRefused, "a request for a stream that this node does not know")
}

func TestStreamExec(t *testing.T) {
	up, ended := newPod("up"), newPod("ended", runtimetest.Exits0...)
	ended.Spec.RestartPolicy = corev1.RestartPolicyNever
	g := newStreamRig(t, false, up, ended)
	s := g.must(execIn(up, kv.ExecRequest{Command: []string{"cat"}, Stdin: true, Stdout: true, Stderr: true}))
	if err := s.Send(t.Context(), kv.ChannelStdin, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if got := received(t, s); got[1] != "hello" || !strings.HasPrefix(got[2], "end in c") || got[3] != `{"exitCode":3}` {
		t.Errorf("got %q", got)
	}

	s = g.must(execIn(up, kv.ExecRequest{Command: []string{"size"}, TTY: true, Stdout: true, Stderr: true}))
	if err := s.Send(t.Context(), kv.ChannelResize, []byte(`{"width":80,"height":24}`)); err != nil {
		t.Fatal(err)
	}
	if got := received(t, s); got[1] != "80x24, stderr false" {
		t.Errorf("got %q", got)
	}

	for command, want := range map[string]kv.StreamResult{
		"missing": {ExitCode: 127, Error: "OCI runtime exec failed: not there", Class: "refused"},
		"broken":  {ExitCode: 1, Error: "it broke: unavailable", Class: "unavailable"},
	} {
		got := received(t, g.must(execIn(up, kv.ExecRequest{Command: []string{command}})))
		var result kv.StreamResult
		if err := json.Unmarshal([]byte(got[3]), &result); err != nil || result != want {
			t.Errorf("%s: %q", command, got[3])
		}
	}

	s = g.must(execIn(up, kv.ExecRequest{Command: []string{"hang"}, TTY: true}))
	s.Close(nil)
	if err := <-g.rt.ended; err == nil {
		t.Error("the command's context did not end")
	}
	g.refused(execIn(ended, kv.ExecRequest{Command: []string{"cat"}}), schema.ErrNotFound, `container not found ("web")`)
	g.refused(execIn(up, kv.ExecRequest{}), schema.ErrRefused, "a request for a stream that this node does not know")
}

func TestStreamsOfARuntimeWithoutThem(t *testing.T) {
	up := newPod("up")
	g := newStreamRig(t, true, up)
	g.refused(logOf(up, corev1.PodLogOptions{}), schema.ErrRefused, "the runtime of node n1 has neither logs nor commands")
}

// Which attempt is meant, and the kubelet's words when there is none.
func TestLoggedContainer(t *testing.T) {
	ended := func(id string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: id}}
	}
	waits := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	for i, c := range []struct {
		state, last corev1.ContainerState
		previous    bool
		id, err     string
	}{
		{state: runs, id: "now"},
		{state: runs, last: ended("containerd://old"), id: "now"},
		{state: runs, last: ended("containerd://old"), previous: true, id: "old"},
		{state: runs, previous: true, err: `previous terminated container "web" in pod "p" not found`},
		{state: ended("containerd://now"), id: "now"},
		{state: ended(""), last: ended("containerd://old"), id: "old"},
		{state: ended(""), err: `container "web" in pod "p" is terminated`},
		{state: waits("CrashLoopBackOff"), last: ended("containerd://old"), id: "old"},
		{state: waits("CrashLoopBackOff"), last: ended("containerd://old"), previous: true, id: "old"},
		{state: waits("ContainerCreating"), err: `container "web" in pod "p" is waiting to start: ContainerCreating`},
		{state: waits("PodInitializing"), err: `container "web" in pod "p" is waiting to start: PodInitializing`},
		{state: waits("ErrImagePull"), err: `container "web" in pod "p" is waiting to start: image can't be pulled`},
		{state: waits("ImagePullBackOff"), err: `container "web" in pod "p" is waiting to start: trying and failing to pull image`},
		{err: `container "web" in pod "p" is waiting to start - no logs yet`},
	} {
		s := &corev1.ContainerStatus{Name: "web", ContainerID: "containerd://now", State: c.state, LastTerminationState: c.last}
		id, err := nodeagent.LoggedContainer(s, "p", c.previous)
		if id != c.id || c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err || !errors.Is(err, schema.ErrRefused)) {
			t.Errorf("%d: %q, %v", i, id, err)
		}
	}
}
