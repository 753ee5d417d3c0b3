package stream

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// shell is a node that knows a few commands.
func shell(r kv.StreamRequest, n nodeSide) error {
	switch r.Exec.Command[0] {
	case "hello":
		_ = n.write(kv.ChannelStdout, "out\n")
		_ = n.write(kv.ChannelStderr, "err\n")
		return n.result(kv.StreamResult{})
	case "exit":
		return n.result(kv.StreamResult{ExitCode: 7})
	case "exit and lost":
		_ = n.result(kv.StreamResult{ExitCode: 7})
		return kv.StreamErrorf(schema.ErrUnavailable, "node n1: its agent is stopping")
	case "nope":
		return n.result(kv.StreamResult{Error: `exec: "nope": executable file not found in $PATH`, Class: "refused"})
	case "cat":
		for {
			f, more := n.next()
			if !more {
				return n.result(kv.StreamResult{})
			}
			if f.channel == kv.ChannelStdin {
				if err := n.write(kv.ChannelStdout, string(f.data)); err != nil {
					return err
				}
			}
		}
	case "sleep":
		<-n.ctx.Done()
		return context.Cause(n.ctx)
	case "lost":
		_ = n.write(kv.ChannelStdout, "begun\n")
		return kv.StreamErrorf(schema.ErrUnavailable, "node n1 was lost")
	}
	return kv.StreamErrorf(schema.ErrRefused, "no such command")
}

func everyTransport(t *testing.T, names []string, test func(t *testing.T, name string)) {
	if names == nil {
		for name := range transports {
			names = append(names, name)
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) { test(t, name) })
	}
}

func TestCommand(t *testing.T) {
	everyTransport(t, nil, func(t *testing.T, name string) {
		g := newRig(t, shell)
		var out, errs bytes.Buffer
		err := g.run(t.Context(), name, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}, "hello")
		if err != nil || out.String() != "out\n" || errs.String() != "err\n" {
			t.Errorf("%q %q %v", out.String(), errs.String(), err)
		}
	})
}

func TestExitCode(t *testing.T) {
	everyTransport(t, []string{"websocket v5", "websocket v4", "spdy"}, func(t *testing.T, name string) {
		for _, command := range []string{"exit", "exit and lost"} {
			g := newRig(t, shell)
			err := g.run(t.Context(), name, remotecommand.StreamOptions{Stdout: io.Discard}, command)
			var code exec.CodeExitError
			if !errors.As(err, &code) || code.Code != 7 {
				t.Errorf("%s: %v", command, err)
			}
		}
	})
}

// Of client-go's v1 a message may come too late to be heard.
var toldErrors = []string{"websocket v5", "websocket v4", "spdy", "spdy v3", "spdy v2"}

func TestCommandThatCannotRun(t *testing.T) {
	everyTransport(t, toldErrors, func(t *testing.T, name string) {
		g := newRig(t, shell)
		err := g.run(t.Context(), name, remotecommand.StreamOptions{Stdout: io.Discard}, "nope")
		if err == nil || !strings.Contains(err.Error(), `error executing command in container: exec: "nope": executable file not found in $PATH`) {
			t.Errorf("%v", err)
		}
	})
}

func TestNodeLostUnderWay(t *testing.T) {
	everyTransport(t, toldErrors, func(t *testing.T, name string) {
		g := newRig(t, shell)
		var out bytes.Buffer
		err := g.run(t.Context(), name, remotecommand.StreamOptions{Stdout: &out}, "lost")
		if err == nil || !strings.Contains(err.Error(), "node n1 was lost") || out.String() != "begun\n" {
			t.Errorf("%q %v", out.String(), err)
		}
	})
}

// 10 MB go to the command and come back, while neither side holds them.
func TestManyBytesBothWays(t *testing.T) {
	everyTransport(t, best, func(t *testing.T, name string) {
		g := newRig(t, shell)
		in := make([]byte, 10<<20)
		if _, err := rand.Read(in); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err := g.run(t.Context(), name, remotecommand.StreamOptions{Stdin: bytes.NewReader(in), Stdout: &out}, "cat")
		if err != nil || !bytes.Equal(in, out.Bytes()) {
			t.Errorf("%d of %d bytes came back: %v", out.Len(), len(in), err)
		}
	})
}

// The command ends although its input goes on: what it said arrives all the same.
func TestCommandThatDoesNotReadItsInput(t *testing.T) {
	everyTransport(t, best, func(t *testing.T, name string) {
		g := newRig(t, func(r kv.StreamRequest, n nodeSide) error {
			if _, more := n.next(); !more {
				return errors.New("no input")
			}
			_ = n.write(kv.ChannelStdout, strings.Repeat("x", 100_000))
			return n.result(kv.StreamResult{ExitCode: 3})
		})
		var out bytes.Buffer
		err := g.run(t.Context(), name, remotecommand.StreamOptions{Stdin: endless{}, Stdout: &out}, "head")
		var code exec.CodeExitError
		if !errors.As(err, &code) || code.Code != 3 || out.Len() != 100_000 {
			t.Errorf("%d bytes, %v", out.Len(), err)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// sizes is a terminal that was resized already.
type sizes chan *remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize { return <-s }

func TestTerminal(t *testing.T) {
	everyTransport(t, []string{"websocket v5", "websocket v4", "spdy", "spdy v3"}, func(t *testing.T, name string) {
		g := newRig(t, func(r kv.StreamRequest, n nodeSide) error {
			if !r.Exec.TTY || r.Exec.Stderr || !r.Exec.Stdin {
				return fmt.Errorf("%+v", r.Exec)
			}
			var typed, size string
			for typed == "" || size == "" {
				switch f, more := n.next(); {
				case !more:
					return errors.New("the input ended")
				case f.channel == kv.ChannelStdin:
					typed += string(f.data)
				case f.channel == kv.ChannelResize:
					size += string(f.data)
				}
			}
			_ = n.write(kv.ChannelStdout, typed+size)
			return n.result(kv.StreamResult{})
		})
		var out bytes.Buffer
		in, typed := io.Pipe()
		defer typed.Close()
		go typed.Write([]byte("ls\n"))
		s := make(sizes, 2)
		s <- &remotecommand.TerminalSize{Width: 80, Height: 24}
		defer close(s)
		err := g.run(t.Context(), name, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: s}, "sh")
		if err != nil || out.String() != "ls\n"+`{"width":80,"height":24}` {
			t.Errorf("%q %v", out.String(), err)
		}
	})
}

// A client that is killed ends its command, whatever was open between them.
func TestClientGone(t *testing.T) {
	for _, o := range []struct {
		what string
		in   bool
		o    remotecommand.StreamOptions
	}{
		{"output", false, remotecommand.StreamOptions{}},
		{"input", true, remotecommand.StreamOptions{}},
		{"terminal", true, remotecommand.StreamOptions{Tty: true}},
	} {
		everyTransport(t, best, func(t *testing.T, name string) {
			t.Run(o.what, func(t *testing.T) {
				if o.in { // on which nobody types
					in, typed := io.Pipe()
					defer typed.Close()
					o.o.Stdin = in
				}
				ended := make(chan struct{})
				g := newRig(t, func(r kv.StreamRequest, n nodeSide) error {
					defer close(ended)
					_ = n.write(kv.ChannelStdout, "begun")
					<-n.ctx.Done()
					return nil
				})
				ctx, cancel := context.WithCancel(t.Context())
				var out lockedBuffer
				o.o.Stdout = &out
				done := make(chan error)
				go func() { done <- g.run(ctx, name, o.o, "sleep") }()
				eventually(t, "the command runs", func() bool { return out.String() == "begun" })
				cancel()
				<-done
				select {
				case <-ended:
				case <-time.After(15 * time.Second):
					t.Error("the command goes on")
				}
			})
		})
	}
}

// The command does not read, so neither is the client's input read, nor its end.
// (client-go's own SPDY cannot hang up while it writes, so it is no such client.)
func TestClientGoneWhileItsInputWaits(t *testing.T) {
	everyTransport(t, []string{"websocket v5", "websocket v4"}, func(t *testing.T, name string) {
		ended := make(chan struct{})
		g := newRig(t, func(r kv.StreamRequest, n nodeSide) error {
			defer close(ended)
			<-n.ctx.Done()
			return nil
		})
		g.streams.ping = 20 * time.Millisecond
		var sent counted
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- g.run(ctx, name, remotecommand.StreamOptions{Stdin: &sent, Stdout: io.Discard}, "sleep")
		}()
		var before int64 = -1
		eventually(t, "the client is held back", func() bool {
			time.Sleep(50 * time.Millisecond)
			now := sent.n.Load()
			still := now > 1<<20 && now == before
			before = now
			return still
		})
		if n := sent.n.Load(); n > 64<<20 {
			t.Errorf("%d bytes were taken from the client", n)
		}
		cancel()
		<-done
		select {
		case <-ended:
		case <-time.After(15 * time.Second):
			t.Error("the command goes on")
		}
	})
}

// counted is an endless input.
type counted struct{ n atomic.Int64 }

func (c *counted) Read(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// A server that stops ends its commands, and clients that do not read.
func TestServerStops(t *testing.T) {
	everyTransport(t, best, func(t *testing.T, name string) {
		g := newRig(t, func(r kv.StreamRequest, n nodeSide) error {
			for n.write(kv.ChannelStdout, strings.Repeat("x", 32<<10)) == nil {
			}
			return nil
		})
		ctx, stop := context.WithCancel(t.Context())
		g.base = ctx
		gate := &gatedWriter{open: make(chan struct{})}
		done := make(chan error)
		go func() { done <- g.run(t.Context(), name, remotecommand.StreamOptions{Stdout: gate}, "yes") }()
		eventually(t, "the command runs", func() bool { return g.streams.Counts().ExecOpen == 1 })
		stop()
		eventually(t, "it has ended", func() bool { return g.streams.Counts().ExecOpen == 0 })
		close(gate.open)
		// Over SPDY client-go takes any end of the connection for a good one.
		if err := <-done; err == nil && name != "spdy" {
			t.Error("the client believes that the command has ended")
		}
	})
}

func TestManyCommandsAtOnce(t *testing.T) {
	g := newRig(t, shell)
	var group errgroup.Group
	for i := range 40 {
		group.Go(func() error {
			in := strings.Repeat(fmt.Sprint(i), 100_000)
			var out bytes.Buffer
			err := g.run(t.Context(), best[i%2], remotecommand.StreamOptions{Stdin: strings.NewReader(in), Stdout: &out}, "cat")
			if err == nil && out.String() != in {
				err = fmt.Errorf("command %d got another one's output", i)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// A client that does not read holds the command back.
func TestSlowReaderOfACommand(t *testing.T) {
	everyTransport(t, best, func(t *testing.T, name string) {
		var sent atomic.Int64
		g := newRig(t, func(r kv.StreamRequest, n nodeSide) error {
			part := strings.Repeat("x", 32<<10)
			for range 3000 { // 96 MiB
				if err := n.write(kv.ChannelStdout, part); err != nil {
					return err
				}
				sent.Add(int64(len(part)))
			}
			return n.result(kv.StreamResult{})
		})
		gate := &gatedWriter{open: make(chan struct{})}
		done := make(chan error)
		go func() { done <- g.run(t.Context(), name, remotecommand.StreamOptions{Stdout: gate}, "yes") }()
		var before int64 = -1
		eventually(t, "the command is held back", func() bool {
			time.Sleep(50 * time.Millisecond)
			now := sent.Load()
			still := now > 0 && now == before
			before = now
			return still
		})
		// What is on its way stands in the sockets' buffers, not in this process.
		if n := sent.Load(); n > 64<<20 {
			t.Errorf("%d bytes were taken from the command that nobody reads", n)
		}
		close(gate.open)
		if err := <-done; err != nil || gate.n != 3000*32<<10 {
			t.Errorf("%d bytes, %v", gate.n, err)
		}
	})
}

// gatedWriter takes nothing until it is opened.
type gatedWriter struct {
	open chan struct{}
	n    int
}

func (g *gatedWriter) Write(p []byte) (int, error) {
	<-g.open
	g.n += len(p)
	return len(p), nil
}

// What is wrong before the connection is upgraded is an answer with a code, and
// kubectl falls back from WebSocket to SPDY to read it.
func TestCommandRefused(t *testing.T) {
	for _, c := range []struct {
		what    string
		query   string
		change  func(*rig)
		code    int
		message string
	}{
		{"no such container", "container=x", nil, 400, "container x is not valid for pod web"},
		{"nothing open", "stdout=false", nil, 400, "you must specify at least 1 of stdin, stdout, stderr"},
		{"on no node", "", func(g *rig) { g.pod.Spec.NodeName = "" }, 400, "pod web does not have a host assigned"},
		{"node away", "", func(g *rig) { g.node.refuse = fmt.Errorf("node n1 is not connected: %w", schema.ErrUnavailable) }, 503, "node n1 is not connected"},
		{"container not running", "", func(g *rig) {
			g.node.refuse = kv.StreamErrorf(schema.ErrRefused, `container main of pod web is not running`)
		}, 400, "container main of pod web is not running"},
		{"node too slow", "", func(g *rig) { g.node.refuse = context.DeadlineExceeded }, 504, "Timeout: node n1 did not answer in time"},
		{"no such pod", "", func(g *rig) { g.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "other"}} }, 404, `pods "web" not found`},
		{"too many", "", func(g *rig) { g.streams.o.Most = 1; g.streams.all.Add(1) }, 429, "too many logs, commands and connections of pods are open, try again when some have ended"},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := newRig(t, shell)
			if c.change != nil {
				c.change(g)
			}
			q, _ := url.ParseQuery("command=hello&stdout=true")
			set, _ := url.ParseQuery(c.query)
			for k, v := range set {
				q[k] = v
			}
			u := g.url("exec", q)
			dial := *u
			dial.Scheme = "ws"
			d := websocket.Dialer{Subprotocols: []string{"v5.channel.k8s.io"}}
			_, a, err := d.Dial(dial.String(), nil)
			if err == nil {
				t.Fatal("upgraded")
			}
			defer a.Body.Close()
			if s := status(t, answer{a.StatusCode, a.Header, a.Body}); int(s.Code) != c.code || s.Message != c.message {
				t.Errorf("%d %q", s.Code, s.Message)
			}
			first, _ := remotecommand.NewWebSocketExecutor(&rest.Config{Host: g.server.URL}, "GET", u.String())
			second, _ := remotecommand.NewSPDYExecutor(&rest.Config{Host: g.server.URL}, "POST", u)
			fallback, _ := remotecommand.NewFallbackExecutor(first, second, func(err error) bool { return httpstream.IsUpgradeFailure(err) })
			err = fallback.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
			if err == nil || !strings.Contains(err.Error(), c.message) {
				t.Errorf("kubectl would say %q", err)
			}
		})
	}
}

func TestRequestWithoutUpgrade(t *testing.T) {
	g := newRig(t, shell)
	a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(g.url("exec", url.Values{"command": {"hello"}, "stdout": {"1"}}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if s := status(t, answer{a.StatusCode, a.Header, a.Body}); s.Code != 400 || s.Message != "Upgrade request required" {
		t.Errorf("%+v", s)
	}
}

// Pages in a browser speak base64, and the old protocols without a Status.
func TestOtherWebSocketProtocols(t *testing.T) {
	for protocol, want := range map[string][]string{
		"":                         {"\x01", "\x01out\n", "\x02err\n"},
		"channel.k8s.io":           {"\x01", "\x01out\n", "\x02err\n"},
		"base64.channel.k8s.io":    {"1", "1b3V0Cg==", "2ZXJyCg=="},
		"v4.base64.channel.k8s.io": {"1", "1b3V0Cg==", "2ZXJyCg==", "3eyJtZXRhZGF0YSI6e30sInN0YXR1cyI6IlN1Y2Nlc3MifQ=="},
		"v4.channel.k8s.io":        {"\x01", "\x01out\n", "\x02err\n", "\x03" + `{"metadata":{},"status":"Success"}`},
	} {
		t.Run(protocol, func(t *testing.T) {
			g := newRig(t, shell)
			u := g.url("exec", url.Values{"command": {"hello"}, "stdout": {"1"}, "stderr": {"1"}})
			u.Scheme = "ws"
			d := websocket.Dialer{}
			if protocol != "" {
				d.Subprotocols = []string{protocol}
			}
			conn, a, err := d.Dial(u.String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			defer conn.Close()
			var got []string
			for {
				_, message, err := conn.ReadMessage()
				if err != nil {
					if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
						t.Error(err)
					}
					break
				}
				got = append(got, string(message))
			}
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// A page of another origin may not ride on the credentials that a browser adds.
func TestForeignOrigin(t *testing.T) {
	g := newRig(t, shell)
	u := g.url("exec", url.Values{"command": {"hello"}, "stdout": {"1"}})
	u.Scheme = "ws"
	_, a, err := (&websocket.Dialer{}).Dial(u.String(), http.Header{"Origin": {"https://evil.example"}})
	if err == nil || a == nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusForbidden {
		t.Error(a.Status)
	}
}

func TestResultStatusHasEightBits(t *testing.T) {
	for code, want := range map[int]string{1: "1", 255: "255", 256: "255", -1: "255", 137: "137"} {
		text, _ := json.Marshal(resultStatus(kv.StreamResult{ExitCode: code}, ""))
		if !strings.Contains(string(text), fmt.Sprintf(`"causes":[{"reason":"ExitCode","message":"%s"}]`, want)) {
			t.Errorf("%d: %s", code, text)
		}
	}
}

// A lateSession's sign of life goes out while the end is being told, and fails
// because of that; its client hangs up once it has heard the end.
type lateSession struct {
	pinging, told chan struct{}
	closed        atomic.Bool
	cut           bool // before the client had hung up
	once          sync.Once
}

func (s *lateSession) serve(input) {
	<-s.told
	synctest.Wait() // until whatever comes of the sign of life has happened
	s.cut = s.closed.Load()
}

func (s *lateSession) ping() error {
	s.once.Do(func() { close(s.pinging) })
	<-s.told
	return websocket.ErrCloseSent
}

func (s *lateSession) write(byte, []byte) error { return nil }
func (s *lateSession) finish(metav1.Status)     { close(s.told) }
func (s *lateSession) close()                   { s.closed.Store(true) }

// A client is not hung up on because the sign of life comes too late for it.
func TestSignOfLifeMeetsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &lateSession{pinging: make(chan struct{}), told: make(chan struct{})}
		node := &fakeNode{handle: func(_ kv.StreamRequest, n nodeSide) error {
			<-client.pinging
			return n.result(kv.StreamResult{})
		}}
		c, err := node.Open(t.Context(), "n1", kv.StreamRequest{UID: "u1", Pod: schema.PodKey{Namespace: "default", Name: "web"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		e := &execution{server: t.Context(), ctx: ctx, cancel: cancel, node: c, client: client, ping: defaultPing}
		if err := e.run(); err != nil || client.cut {
			t.Errorf("%v; cut off: %t", err, client.cut)
		}
	})
}

// A typedStream is what somebody types into a stream of SPDY.
type typedStream struct {
	httpstream.Stream
	text  io.Reader
	reset bool
}

func (s typedStream) Read(p []byte) (int, error) { return s.text.Read(p) }
func (s typedStream) IsFinished() bool           { return s.reset }

// A spdyOver is a session that is over when its channel is closed.
type spdyOver struct {
	httpstream.Connection
	over chan bool
}

func (s spdyOver) CloseChan() <-chan bool { return s.over }

// A typedInput is what arrived of it.
type typedInput struct {
	text  []byte
	ended bool
}

func (x *typedInput) stdin(data []byte) { x.text = append(x.text, data...) }
func (x *typedInput) stdinEnd()         { x.ended = true }
func (x *typedInput) resize([]byte)     {}

// A client that goes in the midst of its input has not ended it: a command must
// not take half of it for all.
func TestInputThatIsCutOff(t *testing.T) {
	for _, x := range []struct {
		what        string
		reset, over bool
		ended       bool
	}{
		{"it has ended", false, false, true},
		{"the client hangs up", false, true, false},
		{"the client resets it", true, false, false},
	} {
		t.Run(x.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				session := spdyOver{over: make(chan bool)}
				if x.over {
					close(session.over)
				}
				s := &spdySession{conn: session, streams: map[string]httpstream.Stream{
					corev1.StreamTypeStdin: typedStream{text: strings.NewReader("typed"), reset: x.reset},
				}}
				var in typedInput
				var g sync.WaitGroup
				g.Go(func() { s.serve(&in) })
				synctest.Wait()
				if !x.over {
					close(session.over)
				}
				g.Wait()
				if string(in.text) != "typed" || in.ended != x.ended {
					t.Errorf("%q, ended: %t", in.text, in.ended)
				}
			})
		})
	}
}
