package containerd

import (
	"context"
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
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// noVolumes is for pods that have none.
type noVolumes struct{}

func (noVolumes) Setup(context.Context, *corev1.Pod, nodeagent.Objects) error { return nil }
func (noVolumes) Mounts(*corev1.Pod, *corev1.Container) ([]nodeagent.Mount, error) {
	return nil, nil
}
func (noVolumes) Remove(context.Context, types.UID) error   { return nil }
func (noVolumes) Held(context.Context) ([]types.UID, error) { return nil, nil }

// assigning is a control plane that assigns one pod and opens streams.
type assigning struct {
	pod  *corev1.Pod
	conn *kv.Conn
}

func (a assigning) Run(ctx context.Context, h nodeagent.Handler) error {
	h.Whole(nodeagent.Assigned{Assignments: []schema.Assignment{{Node: "n1", Pod: *a.pod}}})
	return kv.ServeStreams(ctx, a.conn, "n1", h.(nodeagent.StreamHandler).Stream)
}
func (assigning) ReportPods(context.Context, []schema.PodReport) error { return nil }
func (assigning) ReportNode(context.Context, *corev1.Node) error       { return nil }
func (assigning) ReportEvents(context.Context, []corev1.Event) error   { return nil }

// A nodeRig is an agent on a real runtime and a connection to it.
type nodeRig struct {
	*rig
	pod     *testPod
	control *kv.Conn
	streams *kv.Streams
	stop    func()
}

func newNodeRig(tb testing.TB, command ...string) *nodeRig {
	tb.Helper()
	g := &nodeRig{rig: newRig(tb)}
	g.pod = g.rig.pod("node")
	g.pod.add("main", command...).ImagePullPolicy = corev1.PullIfNotPresent
	g.pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		tb.Fatal(err)
	}
	ns.Start()
	tb.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	connect := func(name string) *kv.Conn {
		c, err := kv.Connect(g.ctx, kv.ConnOptions{InProcess: ns, Name: name, InboxPrefix: "_INBOX." + name, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(c.Close)
		return c
	}
	g.control = connect("control")
	g.streams = kv.NewStreams(g.control)
	cfg := nodeagent.Config{
		Node: "n1", DataDir: tb.TempDir(), RunDir: tb.TempDir(), Runtime: g.rt, Volumes: noVolumes{}, NodeIP: "192.0.2.1",
		Logger: slog.New(slog.DiscardHandler), Link: assigning{g.pod.Pod, connect("n1")},
	}
	ctx, cancel := context.WithCancel(g.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := nodeagent.Run(ctx, cfg); err != nil {
			tb.Errorf("Run: %v", err)
		}
	})
	wg.Go(func() { g.streams.Run(ctx) })
	g.stop = func() { cancel(); wg.Wait() }
	tb.Cleanup(g.stop)
	return g
}

func (g *nodeRig) request() kv.StreamRequest {
	return kv.StreamRequest{Pod: podKey(g.pod), UID: g.pod.UID, Container: "main"}
}

// open opens a stream, waiting until the container is there.
func (g *nodeRig) open(r kv.StreamRequest) *kv.Stream {
	g.tb.Helper()
	limit := time.Now().Add(patience)
	for {
		s, err := g.streams.Open(g.ctx, "n1", r)
		if err == nil {
			g.tb.Cleanup(func() { s.Close(nil) })
			return s
		}
		if time.Now().After(limit) {
			g.tb.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (g *nodeRig) exec(e kv.ExecRequest) *kv.Stream {
	g.tb.Helper()
	r := g.request()
	r.Verb, r.Exec = kv.StreamExec, &e
	return g.open(r)
}

// rest is everything that a stream brings still, by channel.
func rest(ctx context.Context, s *kv.Stream) (got [4]string, err error) {
	for {
		channel, data, err := s.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got[channel] += string(data)
	}
}

// From the control plane to a process and back: everything that an agent on a
// real runtime does for logs and commands.
func TestStreamsOfARealNode(t *testing.T) {
	g := newNodeRig(t, "sh", "-c", "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.1; done")
	s := g.exec(kv.ExecRequest{Command: sh("cat; echo err >&2; exit 5"), Stdin: true, Stdout: true, Stderr: true})
	text := strings.Repeat("some input\n", 50_000)
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := errors.Join(s.Send(g.ctx, kv.ChannelStdin, []byte(text)), s.CloseSend()); err != nil {
			t.Errorf("Send: %v", err)
		}
	})
	got, err := rest(g.ctx, s)
	sending.Wait()
	if err != nil || got[1] != text || got[2] != "err\n" || got[3] != `{"exitCode":5}` {
		t.Errorf("%d bytes of %d, %q, %v", len(got[1]), len(text), got[2:], err)
	}
	got, err = rest(g.ctx, g.exec(kv.ExecRequest{Command: []string{"nope"}, Stdout: true}))
	if err != nil || !strings.Contains(got[3], `"exitCode":127,"error":"OCI runtime exec failed: `) || !strings.Contains(got[3], "executable file not found in $PATH") {
		t.Errorf("a command that is not there: %q, %v", got[3], err)
	}

	r := g.request()
	r.Verb, r.Log = kv.StreamLog, &corev1.PodLogOptions{Follow: true}
	log := g.open(r)
	if _, data, err := log.Recv(g.ctx); err != nil || string(data) != "hello\n" {
		t.Errorf("log: %q, %v", data, err)
	}
	id := g.pod.look().Containers[0].ID
	if err := g.rt.Signal(g.ctx, id, "TERM", time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, err := rest(g.ctx, log); err != nil || got[1] != "bye\n" {
		t.Errorf("the end of the log: %q, %v", got, err)
	}
}

// However the client goes, the command and what it started go too.
func TestCommandOfAVanishedClient(t *testing.T) {
	for name, vanish := range map[string]func(g *nodeRig, s *kv.Stream){
		"closed":              func(_ *nodeRig, s *kv.Stream) { s.Close(nil) },
		"the control plane":   func(g *nodeRig, _ *kv.Stream) { g.control.Close() },
		"the agent, in peace": func(g *nodeRig, _ *kv.Stream) { g.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			g := newNodeRig(t, "sleep", "100000")
			for _, tty := range []bool{true, false} {
				s := g.exec(kv.ExecRequest{Command: sh("sleep 7001 & echo up; sleep 7002"), TTY: tty, Stdin: true, Stdout: true})
				if _, data, err := s.Recv(g.ctx); err != nil || !strings.HasPrefix(string(data), "up") {
					t.Fatalf("%q, %v", data, err)
				}
				if tty {
					s.Close(nil)
					continue
				}
				vanish(g, s)
			}
			id := g.pod.look().Containers[0].ID
			eventually(t, "nothing of it is left", func() bool { return len(g.commandsIn(id)) == 0 && len(g.execFIFOs(g.pod)) == 0 })
		})
	}
}

// BenchmarkExecOverNATS measures a command that does nothing, from the control
// plane, with its result.
func BenchmarkExecOverNATS(b *testing.B) {
	g := newNodeRig(b, "sleep", "100000")
	for b.Loop() {
		got, err := rest(g.ctx, g.exec(kv.ExecRequest{Command: []string{"true"}, Stdout: true, Stderr: true}))
		if err != nil || got[3] != `{"exitCode":0}` {
			b.Fatal(fmt.Sprint(got, err))
		}
	}
}
