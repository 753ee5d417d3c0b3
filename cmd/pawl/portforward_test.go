package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/kubectl/pkg/cmd/portforward"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/pawl-project/pawl/reconciler/api/stream"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A portUse is what a port of the pod does with a connection.
type portUse func(c *net.TCPConn)

// A forwardNode is a node in this process; its pod uses its ports so.
type forwardNode map[uint16]portUse

// Open implements stream.Dialer.
func (n forwardNode) Open(_ context.Context, _ schema.NodeName, r kv.StreamRequest) (stream.Conn, error) {
	use := n[r.Forward.Port]
	if use == nil {
		return nil, kv.StreamErrorf(schema.ErrUnavailable, "failed to connect to localhost:%d inside the pod: connection refused", r.Forward.Port)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	there, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	here, err := l.Accept()
	if err != nil {
		there.Close()
		return nil, err
	}
	go func() {
		defer here.Close()
		use(here.(*net.TCPConn))
	}()
	c := &forwardConn{TCPConn: there.(*net.TCPConn)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// A forwardConn is a connection to the pod as a stream.
type forwardConn struct {
	*net.TCPConn
	ctx    context.Context
	cancel context.CancelFunc
	halves atomic.Int32 // that have ended
}

func (c *forwardConn) Send(_ context.Context, _ byte, data []byte) error {
	_, err := c.Write(data)
	return err
}

func (c *forwardConn) Recv(ctx context.Context) (byte, []byte, error) {
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	b := make([]byte, 32<<10)
	n, err := c.Read(b)
	if errors.Is(err, io.EOF) {
		c.half()
		return 0, nil, err
	}
	if err != nil {
		err = fmt.Errorf("the connection broke: %w: %w", err, schema.ErrUnavailable)
	}
	return kv.ChannelStdout, b[:n], err
}

func (c *forwardConn) CloseSend() error { c.half(); return c.CloseWrite() }

func (c *forwardConn) half() {
	if c.halves.Add(1) == 2 {
		c.cancel()
	}
}

func (c *forwardConn) Close(error) {
	if c.ctx.Err() == nil { // as the node does
		c.SetLinger(0)
	}
	c.cancel()
	c.TCPConn.Close()
}

func (c *forwardConn) Context() context.Context { return c.ctx }

// A forwardRig is a client that forwards ports of a pod, by a real server.
type forwardRig struct {
	t      *testing.T
	server *httptest.Server
	out    *lockedText
	errs   *lockedText
	at     map[string]string // where a port of the pod is reached here
	stop   chan struct{}
	ended  chan error

	sessions sync.Map // connections with the client
}

// breaks ends all sessions as a server that is killed does.
func (g *forwardRig) breaks() {
	for c := range g.sessions.Range {
		c.(net.Conn).Close()
	}
}

type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newForwardRig(t *testing.T, node forwardNode, ports ...string) *forwardRig {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1"}, Spec: corev1.PodSpec{NodeName: "n1"}}
	streams := stream.New(stream.Options{
		Nodes: node, Logger: slog.New(slog.DiscardHandler), Most: 5000,
		Pod: func(k schema.PodKey) (*corev1.Pod, bool) { return pod, k.Name == "web" },
	})
	g := &forwardRig{t: t, out: &lockedText{}, errs: &lockedText{}, at: map[string]string{}, stop: make(chan struct{}), ended: make(chan error, 1)}
	g.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		streams.PortForward(w, r, schema.PodKey{Namespace: "default", Name: "web"})
	}))
	g.server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateHijacked {
			g.sessions.Store(c, nil)
		}
	}
	g.server.Start()
	t.Cleanup(g.server.Close)
	u, err := url.Parse(g.server.URL + "/api/v1/namespaces/default/pods/web/portforward")
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	o := portforward.PortForwardOptions{
		Config: &rest.Config{Host: g.server.URL}, Address: []string{"127.0.0.1"}, Ports: ports,
		StopChannel: g.stop, ReadyChannel: ready,
	}
	w := forwarder{genericiooptions.IOStreams{Out: g.out, ErrOut: g.errs}}
	go func() { g.ended <- w.ForwardPorts(http.MethodPost, u, o) }()
	select {
	case <-ready:
	case err := <-g.ended:
		t.Fatal(err)
	}
	t.Cleanup(g.end)
	for line := range strings.Lines(g.out.String()) {
		at, remote, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "Forwarding from ")), " -> ")
		g.at[remote] = at
	}
	return g
}

// end ends the client as an interrupt does, and waits for it.
func (g *forwardRig) end() {
	select {
	case <-g.stop:
		return
	default:
	}
	close(g.stop)
	if err := <-g.ended; err != nil && err.Error() != "lost connection to pod" {
		g.t.Errorf("the client ended with %v", err)
	}
}

func (g *forwardRig) dial(port string) *net.TCPConn {
	g.t.Helper()
	c, err := net.Dial("tcp", g.at[port])
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func (g *forwardRig) await(what string, ok func() bool) {
	g.t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(limit) {
			g.t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (g *forwardRig) says(text string) {
	g.t.Helper()
	g.await(fmt.Sprintf("it says %q", text), func() bool { return strings.Contains(g.errs.String(), text) })
}

func answersAll(c *net.TCPConn) {
	text, _ := io.ReadAll(c)
	c.Write(text)
}

func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// Many connections at once mix nothing up. Each says all it has to say before
// it is answered: one half ends alone.
func TestForwardManyAtOnce(t *testing.T) {
	g := newForwardRig(t, forwardNode{7: answersAll}, "0:7")
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			c, err := net.Dial("tcp", g.at["7"])
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			want := noise(uint64(i), 1000+i*3000)
			if _, err := c.Write(want); err != nil {
				t.Error(err)
			}
			c.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(c); !bytes.Equal(got, want) || err != nil {
				t.Errorf("%d: %d bytes of %d came back: %v", i, len(got), len(want), err)
			}
		})
	}
	all.Wait()
	if text := g.errs.String(); text != "" {
		t.Errorf("it says %q", text)
	}
}

// What a program here still says to a pod that says no more arrives, all of it,
// although the pod takes its time.
func TestForwardHalfClosedByThePod(t *testing.T) {
	heard := make(chan []byte, 1)
	g := newForwardRig(t, forwardNode{7: func(c *net.TCPConn) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		time.Sleep(100 * time.Millisecond)
		text, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		heard <- text
	}}, "0:7")
	c := g.dial("7")
	if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	want := noise(1, 1<<20)
	if _, err := c.Write(want); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if got := <-heard; !bytes.Equal(got, want) {
		t.Errorf("the pod heard %d bytes of %d", len(got), len(want))
	}
}

// Nobody listens to one port, and a server resets its connections: each is told,
// and others go on.
func TestForwardRefusedAndReset(t *testing.T) {
	g := newForwardRig(t, forwardNode{
		7: answersAll,
		9: func(c *net.TCPConn) {
			io.WriteString(c, "half of an answ")
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
		},
	}, "0:7", "0:8", "0:9")
	open := g.dial("7")
	refused, err := net.Dial("tcp", g.at["8"])
	if err == nil {
		defer refused.Close()
		_, err = io.ReadAll(refused)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("where nobody listens: %v", err)
	}
	g.says("failed to connect to localhost:8 inside the pod: connection refused")
	reset := g.dial("9")
	if _, err := io.ReadFull(reset, make([]byte, 15)); err != nil {
		t.Fatal(err)
	}
	reset.Write([]byte("x"))
	if _, err := io.ReadAll(reset); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("half of an answer is taken for one: %v", err)
	}
	g.says("the connection broke")
	io.WriteString(open, "still")
	open.CloseWrite()
	if got, err := io.ReadAll(open); string(got) != "still" || err != nil {
		t.Errorf("beside them: %q, %v", got, err)
	}
}

// A program here that goes without an end is none to the pod either.
func TestForwardProgramHereGoes(t *testing.T) {
	for name, vanish := range map[string]func(g *forwardRig, c *net.TCPConn){
		"it resets":         func(_ *forwardRig, c *net.TCPConn) { c.SetLinger(0); c.Close() },
		"pawl is stopped":   func(g *forwardRig, _ *net.TCPConn) { g.end() },
		"the server breaks": func(g *forwardRig, _ *net.TCPConn) { g.breaks() },
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan error, 1)
			g := newForwardRig(t, forwardNode{7: func(c *net.TCPConn) {
				io.WriteString(c, "hello")
				_, err := io.Copy(io.Discard, c)
				heard <- err
			}}, "0:7")
			c := g.dial("7")
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			c.Write([]byte("half of a quest"))
			vanish(g, c)
			select {
			case err := <-heard:
				if err == nil {
					t.Error("the pod takes half of a question for one")
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the pod still waits")
			}
			if name != "it resets" {
				if _, err := io.ReadAll(c); err == nil {
					t.Error("the program here sees an end as if it were the pod's")
				}
			}
		})
	}
}

// When the server goes, the command says so and ends.
func TestForwardLosesTheServer(t *testing.T) {
	g := newForwardRig(t, forwardNode{7: answersAll}, "0:7")
	g.breaks()
	select {
	case err := <-g.ended:
		if err == nil || err.Error() != "lost connection to pod" {
			t.Errorf("it ended with %v", err)
		}
		close(g.stop)
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
}

// A program here that does not read holds the pod's writer back, in bounded
// memory, and no other connection.
func TestForwardSlowReader(t *testing.T) {
	const most = 64 << 20
	var said atomic.Int64
	g := newForwardRig(t, forwardNode{
		7: answersAll,
		8: func(c *net.TCPConn) {
			for said.Load() < most {
				n, err := c.Write(make([]byte, 64<<10))
				if said.Add(int64(n)); err != nil {
					return
				}
			}
		},
	}, "0:7", "0:8")
	slow := g.dial("8")
	last := int64(-1)
	g.await("the pod is held back", func() bool {
		now := said.Load()
		held := now == last && now > 0
		last = now
		time.Sleep(200 * time.Millisecond)
		return held
	})
	if n := said.Load(); n > 40<<20 { // mostly what the kernel keeps for six ends of TCP connections
		t.Errorf("%d bytes are on their way", n)
	}
	quick := g.dial("7")
	io.WriteString(quick, "quick")
	quick.CloseWrite()
	if got, err := io.ReadAll(quick); string(got) != "quick" || err != nil {
		t.Errorf("beside it: %q, %v", got, err)
	}
	if n, err := io.Copy(io.Discard, slow); n != said.Load() || n < most || err != nil {
		t.Errorf("%d bytes of %d: %v", n, said.Load(), err)
	}
}

// Nothing is left of two hundred connections that ended in all the ways there are.
func TestForwardLeavesNothing(t *testing.T) {
	g := newForwardRig(t, forwardNode{
		7: answersAll,
		9: func(c *net.TCPConn) { c.SetLinger(0) },
	}, "0:7", "0:8", "0:9")
	once := func(i int) {
		c, err := net.Dial("tcp", g.at[fmt.Sprint(7+i%3)])
		if err != nil {
			if !errors.Is(err, syscall.ECONNRESET) { // refused already
				t.Error(err)
			}
			return
		}
		defer c.Close()
		c.Write([]byte("hello"))
		switch {
		case i%4 == 0:
			c.(*net.TCPConn).SetLinger(0)
		case i%2 == 0:
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		}
	}
	once(0)
	once(6)
	var goroutines, files, same int
	g.await("what the first two left behind has ended", func() bool {
		now, open := runtime.NumGoroutine(), descriptors(t)
		if now != goroutines || open != files {
			goroutines, files, same = now, open, 0
		}
		same++
		return same > 50
	})
	for range 4 {
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() { once(i) })
		}
		all.Wait()
	}
	g.await("no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	g.await("no descriptor is left", func() bool { return descriptors(t) <= files })
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A meeting is a pod's stream that has ended, and whose other half this side ends
// just when somebody asks about it.
type meeting struct {
	httpstream.Stream
	end func()
}

func (m meeting) IsFinished() bool { m.end(); return true }

// A lasting is a session that goes on.
type lasting struct{ httpstream.Connection }

func (lasting) CloseChan() <-chan bool { return nil }

// Where the pod and the program here end at the same time nothing was cut off.
func TestForwardEndsMeet(t *testing.T) {
	x := &crossing{session: lasting{}}
	x.data = meeting{end: func() { x.said.Store(true) }}
	if x.wasCut() {
		t.Error("it is taken for cut off")
	}
}
