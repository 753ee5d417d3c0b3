package nodeagent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A portUse is what a port of the fake runtime's pods does with a connection.
type portUse func(c *net.TCPConn)

// Dial connects with what the port is used for, by a real TCP connection.
func (s streaming) Dial(ctx context.Context, uid types.UID, port uint16) (net.Conn, error) {
	use := s.ports[port]
	if use == nil {
		return nil, kv.StreamErrorf(schema.ErrUnavailable, "failed to connect to localhost:%d inside the pod: connection refused", port)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	there, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
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
	return there, nil
}

func forwardTo(p *corev1.Pod, port uint16) kv.StreamRequest {
	r := logOf(p, corev1.PodLogOptions{})
	r.Verb, r.Log, r.Forward, r.Container = kv.StreamForward, nil, &kv.ForwardRequest{Port: port}, ""
	return r
}

// newForwardRig is a rig whose pod is there and uses its ports so.
func newForwardRig(t *testing.T, ports map[uint16]portUse) (*streamRig, *corev1.Pod) {
	t.Helper()
	up := newPod("up")
	g := newStreamRig(t, false, up)
	for port, use := range ports {
		g.rt.ports[port] = use
	}
	g.must(logOf(up, corev1.PodLogOptions{})).Close(nil)
	return g, up
}

// answers hears everything and answers it after its end.
func answers(c *net.TCPConn) {
	text, _ := io.ReadAll(c)
	c.Write(text)
}

// noise is the same for the same seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// Many connections at once mix nothing up, and each end is an end in its own
// direction alone.
func TestForwardManyAtOnce(t *testing.T) {
	g, up := newForwardRig(t, map[uint16]portUse{7: answers})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			s, err := g.streams.Open(t.Context(), "n1", forwardTo(up, 7))
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close(nil)
			want := noise(uint64(i), 1000+i*1000)
			if err := errors.Join(s.Send(t.Context(), kv.ChannelStdin, want), s.CloseSend()); err != nil {
				t.Errorf("%d: %v", i, err)
			}
			if got, err := forwarded(t.Context(), s); !bytes.Equal(got, want) || err != nil {
				t.Errorf("%d: %d bytes of %d came back: %v", i, len(got), len(want), err)
			}
		})
	}
	all.Wait()
}

// forwarded is all that comes back.
func forwarded(ctx context.Context, s *kv.Stream) (got []byte, err error) {
	for {
		channel, data, err := s.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		if channel != kv.ChannelStdout {
			return got, fmt.Errorf("%d bytes on channel %d", len(data), channel)
		}
		got = append(got, data...)
	}
}

// A server that says no more may still listen.
func TestForwardHalfClosedByThePod(t *testing.T) {
	heard := make(chan string, 1)
	g, up := newForwardRig(t, map[uint16]portUse{7: func(c *net.TCPConn) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		text, _ := io.ReadAll(c)
		heard <- string(text)
	}})
	s := g.must(forwardTo(up, 7))
	if got, err := forwarded(t.Context(), s); string(got) != "bye" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	text := strings.Repeat("still there? ", 100_000)
	if err := errors.Join(s.Send(t.Context(), kv.ChannelStdin, []byte(text)), s.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got != text {
		t.Errorf("the pod heard %d bytes of %d", len(got), len(text))
	}
}

func TestForwardWhereNobodyListens(t *testing.T) {
	g, up := newForwardRig(t, nil)
	g.refused(forwardTo(up, 8), schema.ErrUnavailable, "failed to connect to localhost:8 inside the pod: connection refused")
	r := forwardTo(up, 8)
	r.UID = "another"
	g.refused(r, schema.ErrNotFound, `pods "up" not found`)
	r = forwardTo(up, 8)
	r.Forward = nil
	g.refused(r, schema.ErrRefused, "container  is not valid for pod up")
}

// A server that resets its connection breaks the stream; no end is invented.
func TestForwardReset(t *testing.T) {
	g, up := newForwardRig(t, map[uint16]portUse{7: func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 5))
		c.SetLinger(0)
	}})
	s := g.must(forwardTo(up, 7))
	if err := s.Send(t.Context(), kv.ChannelStdin, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := forwarded(t.Context(), s); len(got) > 0 || !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "the connection broke") {
		t.Errorf("%q, %v", got, err)
	}
	g.await("nothing is open", func() bool { return g.streams.Count() == 0 })
}

// A server that has gone altogether takes nothing more, and what it had said is
// heard to its end.
func TestForwardToOneThatHasGone(t *testing.T) {
	g, up := newForwardRig(t, map[uint16]portUse{7: func(c *net.TCPConn) { io.WriteString(c, "early"); c.CloseWrite() }})
	s := g.must(forwardTo(up, 7))
	for range 200 { // far more than the windows: it is thrown away, and holds up nobody
		if err := s.Send(t.Context(), kv.ChannelStdin, make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := forwarded(t.Context(), s); string(got) != "early" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// forwardHeld is the most that may be on its way in one direction of one
// connection, in bytes: the stream's window, what is read at once, and what the
// kernel keeps for the two ends of a TCP connection on loopback.
const forwardHeld = 16 << 20

// One that does not read holds its writer back, whichever of the two it is, and
// nobody else. Nothing is lost by it.
func TestForwardSlowReader(t *testing.T) {
	const most = 64 << 20
	var said atomic.Int64
	resume := make(chan struct{})
	heard := make(chan int64, 1)
	g, up := newForwardRig(t, map[uint16]portUse{
		7: answers,
		8: func(c *net.TCPConn) {
			for said.Load() < most {
				n, err := c.Write(make([]byte, 64<<10))
				if said.Add(int64(n)); err != nil {
					return
				}
			}
		},
		9: func(c *net.TCPConn) {
			<-resume
			n, _ := io.Copy(io.Discard, c)
			heard <- n
		},
	})
	talker, deaf := g.must(forwardTo(up, 8)), g.must(forwardTo(up, 9))
	var sent atomic.Int64
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for sent.Load() < most {
			if err := deaf.Send(t.Context(), kv.ChannelStdin, make([]byte, 64<<10)); err != nil {
				t.Error(err)
				return
			}
			sent.Add(64 << 10)
		}
		if err := deaf.CloseSend(); err != nil {
			t.Error(err)
		}
	})
	still := func(n *atomic.Int64) func() bool {
		last := int64(-1)
		return func() bool { // no more in a fifth of a second
			now := n.Load()
			held := now == last && now > 0
			last = now
			time.Sleep(200 * time.Millisecond)
			return held
		}
	}
	g.await("the pod is held back", still(&said))
	g.await("the client is held back", still(&sent))
	if n, m := said.Load(), sent.Load(); n > forwardHeld || m > forwardHeld {
		t.Errorf("%d bytes of the pod and %d of the client are on their way", n, m)
	}
	quick := g.must(forwardTo(up, 7))
	if err := errors.Join(quick.Send(t.Context(), kv.ChannelStdin, []byte("quick")), quick.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if got, err := forwarded(t.Context(), quick); string(got) != "quick" || err != nil {
		t.Errorf("beside them: %q, %v", got, err)
	}
	if got, err := forwarded(t.Context(), talker); int64(len(got)) != said.Load() || len(got) < most || err != nil {
		t.Errorf("%d bytes of %d: %v", len(got), said.Load(), err)
	}
	close(resume)
	if n := <-heard; n != most {
		t.Errorf("the pod heard %d bytes of %d", n, most)
	}
}

// await waits for what others bring about.
func (g *streamRig) await(what string, ok func() bool) {
	g.t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(limit) {
			g.t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// However the other side goes, the pod's server hears of it, and that it is no end.
func TestForwardWhoseClientIsGone(t *testing.T) {
	for name, vanish := range map[string]func(g *streamRig, s *kv.Stream){
		"it closes":             func(_ *streamRig, s *kv.Stream) { s.Close(nil) },
		"the control plane":     func(g *streamRig, _ *kv.Stream) { g.control.Close() },
		"the agent is stopped":  func(g *streamRig, _ *kv.Stream) { g.stop() },
		"the server of streams": func(g *streamRig, _ *kv.Stream) { g.nats.Shutdown() },
	} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan error, 1)
			g, up := newForwardRig(t, map[uint16]portUse{7: func(c *net.TCPConn) {
				io.WriteString(c, "hello")
				_, err := io.Copy(io.Discard, c)
				gone <- err
			}})
			s := g.must(forwardTo(up, 7))
			if _, data, err := s.Recv(t.Context()); string(data) != "hello" || err != nil {
				t.Fatalf("%q, %v", data, err)
			}
			vanish(g, s)
			select {
			case err := <-gone:
				if err == nil {
					t.Error("the pod's server takes what it heard for everything")
				}
			case <-time.After(20 * time.Second):
				t.Error("the pod's server still waits")
			}
			if _, err := forwarded(t.Context(), s); err == nil {
				t.Error("the client sees an end as if it were the pod's")
			}
		})
	}
}

// After two hundred connections that ended in all the ways there are, nothing
// of them is left.
func TestForwardLeavesNothing(t *testing.T) {
	g, up := newForwardRig(t, map[uint16]portUse{
		7: answers,
		8: func(c *net.TCPConn) { c.SetLinger(0) },
		9: func(c *net.TCPConn) { io.Copy(io.Discard, c) },
	})
	once := func(i int) {
		s, err := g.streams.Open(t.Context(), "n1", forwardTo(up, uint16(6+i%4)))
		if err != nil {
			if i%4 != 0 {
				t.Error(err)
			}
			return
		}
		s.Send(t.Context(), kv.ChannelStdin, []byte("hello"))
		if i%8 < 4 {
			s.CloseSend()
			forwarded(t.Context(), s)
		}
		s.Close(nil)
	}
	once(1)
	g.await("all is still", func() bool { return g.streams.Count() == 0 })
	subscriptions, goroutines, files := g.nats.NumSubscriptions(), runtime.NumGoroutine(), descriptors(t)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() { once(i) })
		if i%50 == 49 {
			all.Wait()
		}
	}
	g.await("no subscription is left", func() bool { return g.nats.NumSubscriptions() <= subscriptions })
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
