package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A frame is one message of a fake stream.
type frame struct {
	channel byte
	data    []byte
}

// A fakeConn is a stream in memory: a window of 16 frames in either direction.
// It is both sides at once; the node's is nodeSide.
type fakeConn struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	down, up chan frame
	ended    chan struct{} // by CloseSend
	endOnce  sync.Once
	done     chan struct{} // the node has returned
	err      error         // of the node; before done is closed
}

func (c *fakeConn) Send(ctx context.Context, channel byte, data []byte) error {
	return c.put(ctx, c.down, frame{channel, bytes.Clone(data)})
}

func (c *fakeConn) put(ctx context.Context, to chan frame, f frame) error {
	select {
	case to <- f:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

func (c *fakeConn) Recv(ctx context.Context) (byte, []byte, error) {
	select {
	case f := <-c.up:
		return f.channel, f.data, nil
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	case <-c.done:
	}
	select {
	case f := <-c.up:
		return f.channel, f.data, nil
	default:
	}
	if c.err != nil {
		return 0, nil, c.err
	}
	return 0, nil, io.EOF
}

func (c *fakeConn) CloseSend() error {
	c.endOnce.Do(func() { close(c.ended) })
	return nil
}

func (c *fakeConn) Close(error) { c.cancel(errClosed) }

func (c *fakeConn) Context() context.Context { return c.ctx }

var errClosed = errors.New("closed by the control plane")

// A nodeSide is what a node's handler speaks with.
type nodeSide struct{ *fakeConn }

func (n nodeSide) write(channel byte, data string) error {
	return n.put(n.ctx, n.up, frame{channel, []byte(data)})
}

func (n nodeSide) result(r kv.StreamResult) error {
	text, _ := json.Marshal(r)
	return n.write(kv.ChannelResult, string(text))
}

// next is the next frame from the client; false at the end of its input.
func (n nodeSide) next() (frame, bool) {
	select {
	case f := <-n.down:
		return f, true
	default:
	}
	select {
	case f := <-n.down:
		return f, true
	case <-n.ended:
		select {
		case f := <-n.down:
			return f, true
		default:
			return frame{}, false
		}
	case <-n.ctx.Done():
		return frame{}, false
	}
}

// A fakeNode runs a handler for each stream.
type fakeNode struct {
	refuse  error // of Open
	handle  func(r kv.StreamRequest, n nodeSide) error
	running sync.WaitGroup
}

func (f *fakeNode) Open(_ context.Context, n schema.NodeName, r kv.StreamRequest) (Conn, error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	if n != "n1" || r.UID != "u1" || r.Pod.Name != "web" {
		return nil, kv.StreamErrorf(schema.ErrRefused, "another pod was meant: %s %s %s", n, r.UID, r.Pod)
	}
	c := &fakeConn{down: make(chan frame, 16), up: make(chan frame, 16), ended: make(chan struct{}), done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	f.running.Go(func() {
		c.err = f.handle(r, nodeSide{c})
		close(c.done)
	})
	return c, nil
}

// A rig is a server with one pod on a fake node.
type rig struct {
	t       testing.TB
	node    *fakeNode
	pod     *corev1.Pod
	streams *Streams
	server  *httptest.Server
	base    context.Context // of requests; nil: one that does not end
	user    access.User     // who asks
}

func webPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: types.UID("u1")},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main"}}},
	}
}

func (g *rig) newStreams() *Streams {
	return New(Options{
		Nodes: g.node, Logger: slog.New(slog.DiscardHandler),
		Pod: func(k schema.PodKey) (*corev1.Pod, bool) {
			return g.pod, k.Namespace == "default" && k.Name == g.pod.Name
		},
	})
}

func newRig(t testing.TB, handle func(r kv.StreamRequest, n nodeSide) error) *rig {
	t.Helper()
	g := &rig{t: t, node: &fakeNode{handle: handle}, pod: webPod(), user: access.User{Name: "ada", Role: access.Admin}}
	g.streams = g.newStreams()
	before := runtime.NumGoroutine()
	g.server = httptest.NewServer(g)
	t.Cleanup(func() {
		g.server.Close()
		g.node.running.Wait()
		eventually(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
		// There may have been goroutines of a test before, which have ended since.
		eventually(t, "no stream is counted any more", func() bool { c := g.streams.Counts(); return c.LogsOpen+c.ExecOpen == 0 })
	})
	return g
}

func (g *rig) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.base != nil {
		ctx, cancel := context.WithCancel(r.Context())
		defer context.AfterFunc(g.base, cancel)()
		r = r.WithContext(ctx)
	}
	r = r.WithContext(access.WithUser(r.Context(), g.user))
	parts := strings.Split(r.URL.Path, "/") // /api/v1/namespaces/N/pods/P/S
	k := schema.PodKey{Namespace: parts[4], Name: parts[6]}
	if parts[7] == "log" {
		g.streams.Log(w, r, k)
	} else {
		g.streams.Exec(w, r, k)
	}
}

// eventually waits for what other goroutines and the kernel bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			var stacks strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Fatalf("never: %s\n%s", what, stacks.String())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (g *rig) url(sub string, query url.Values) *url.URL {
	u, err := url.Parse(g.server.URL + "/api/v1/namespaces/default/pods/web/" + sub + "?" + query.Encode())
	if err != nil {
		g.t.Fatal(err)
	}
	return u
}

// An answer is what came of a request; its body is closed with the test.
type answer struct {
	code   int
	header http.Header
	body   io.ReadCloser
}

// get asks for a log.
func (g *rig) get(ctx context.Context, query string) answer {
	g.t.Helper()
	q, _ := url.ParseQuery(query)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url("log", q).String(), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { a.Body.Close() })
	return answer{a.StatusCode, a.Header, a.Body}
}

// status reads an answer that is an error.
func status(t testing.TB, a answer) metav1.Status {
	t.Helper()
	var s metav1.Status
	if err := json.NewDecoder(a.body).Decode(&s); err != nil {
		t.Fatalf("%d: %v", a.code, err)
	}
	if s.Kind != "Status" || s.APIVersion != "v1" || int(s.Code) != a.code {
		t.Errorf("%d with %+v", a.code, s)
	}
	return s
}

// transports are the ways in which client-go runs a command.
var transports = map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error){
	"websocket v5": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(c, "GET", u.String())
	},
	"websocket v4": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutorForProtocols(c, "GET", u.String(), "v4.channel.k8s.io")
	},
	"spdy": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(c, "POST", u)
	},
	"spdy v3": spdyVersion("v3.channel.k8s.io"),
	"spdy v2": spdyVersion("v2.channel.k8s.io"),
	"spdy v1": spdyVersion("channel.k8s.io"),
}

func spdyVersion(version string) func(*rest.Config, *url.URL) (remotecommand.Executor, error) {
	return func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		transport, upgrader, err := spdy.RoundTripperFor(c)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, "POST", u, version)
	}
}

// best are the transports that kubectl uses.
var best = []string{"websocket v5", "spdy"}

// run runs a command by one transport.
func (g *rig) run(ctx context.Context, transport string, o remotecommand.StreamOptions, command ...string) error {
	q := url.Values{"command": command}
	for name, there := range map[string]bool{"stdin": o.Stdin != nil, "stdout": o.Stdout != nil, "stderr": o.Stderr != nil, "tty": o.Tty} {
		if there {
			q.Set(name, "true")
		}
	}
	executor, err := transports[transport](&rest.Config{Host: g.server.URL}, g.url("exec", q))
	if err != nil {
		g.t.Error(err)
		return err
	}
	return executor.StreamWithContext(ctx, o)
}

// lockedBuffer collects what comes from another goroutine.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
