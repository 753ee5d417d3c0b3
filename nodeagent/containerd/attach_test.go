package containerd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// An attached is somebody who is attached.
type attached struct {
	in   chan string // closed: the end of the input
	done chan error
	stop context.CancelFunc

	mu       sync.Mutex
	out, err bytes.Buffer
}

// shownTo is one of the buffers behind the lock.
type shownTo struct {
	a  *attached
	to *bytes.Buffer
}

func (w shownTo) Write(p []byte) (int, error) {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	return w.to.Write(p)
}

func (a *attached) text() (string, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.String(), a.err.String()
}

// attach returns once no output is missed any more.
func (g *rig) attach(id string, stdin bool) *attached {
	g.tb.Helper()
	a := &attached{in: make(chan string), done: make(chan error, 1)}
	var ctx context.Context
	ctx, a.stop = context.WithCancel(g.ctx)
	g.tb.Cleanup(a.stop)
	ready := make(chan struct{})
	x := nodeagent.Attachment{
		Attached: func() error { close(ready); return nil },
		Stdout:   shownTo{a, &a.out}, Stderr: shownTo{a, &a.err},
	}
	if stdin {
		x.Stdin = func(ctx context.Context) ([]byte, error) {
			select {
			case text, ok := <-a.in:
				if !ok {
					return nil, io.EOF
				}
				return []byte(text), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	go func() { a.done <- g.rt.Attach(ctx, id, x) }()
	select {
	case <-ready:
	case err := <-a.done:
		g.tb.Fatalf("Attach: %v", err)
	}
	return a
}

// ended is the end of an attachment.
func (g *rig) ended(a *attached) error {
	g.tb.Helper()
	select {
	case err := <-a.done:
		return err
	case <-time.After(patience):
		out, _ := a.text()
		g.tb.Fatalf("the attachment does not end; it saw %.200q", out)
		return nil
	}
}

func (g *rig) awaitText(a *attached, want string) {
	g.tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		out, err := a.text()
		if strings.Contains(out+err, want) {
			return
		}
		if time.Now().After(deadline) {
			g.tb.Fatalf("no %q in %q and %q", want, out, err)
		}
	}
}

// echoes says what it reads, and when there is no more.
const echoes = `while read -r x; do echo "got $x"; echo "err $x" >&2; done; echo over; exit 5`

// withInput starts a container that echoes.
func (g *rig) withInput(change func(*corev1.Container)) (*testPod, string) {
	g.tb.Helper()
	p := g.pod("in")
	c := p.add("main", sh(echoes)...)
	c.Stdin = true
	change(c)
	p.sandbox()
	return p, p.start("main", 0).ID
}

func TestAttach(t *testing.T) {
	g := newRig(t)
	p, id := g.withInput(func(*corev1.Container) {})
	before := g.counts()
	first := g.attach(id, true)
	first.in <- "one\n"
	g.awaitText(first, "got one")
	g.awaitText(first, "err one")
	second := g.attach(id, false) // sees what comes from now on
	first.in <- "two\n"
	for _, a := range []*attached{first, second} {
		g.awaitText(a, "got two")
		g.awaitText(a, "err two")
	}
	if out, errs := second.text(); out != "got two\n" || errs != "err two\n" {
		t.Errorf("the second saw %q and %q", out, errs)
	}
	close(first.in) // its own end alone
	if err := g.ended(first); err != nil {
		t.Error(err)
	}
	second.stop()
	if err := <-second.done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	g.reopen()
	third := g.attach(id, true)
	third.in <- "three\n"
	g.awaitText(third, "err three")
	if c := p.look().Containers[0]; c.State != pod.ContainerRunning {
		t.Errorf("its input ended with the agent: %+v", c)
	}
	extra := g.attach(id, true)
	extra.stop()
	<-extra.done
	if err := g.rt.Signal(g.ctx, id, "KILL", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := g.ended(third); err != nil {
		t.Error(err)
	}
	p.await("it ended", func(s pod.Seen) bool { return s.Containers[0].State == pod.ContainerExited })
	log := readLog(t, p.look().Containers[0].LogPath)
	for _, want := range []string{"got one", "got two", "got three", "err three"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q: %q", want, log)
		}
	}
	err := g.rt.Attach(g.ctx, id, nodeagent.Attachment{Attached: func() error { return nil }})
	if !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("to one that has ended: %v", err)
	}
	g.asBefore(t, before)
}

func TestAttachOnce(t *testing.T) {
	for name, end := range map[string]func(*attached){
		"input ends":    func(a *attached) { close(a.in) },
		"client is cut": func(a *attached) { a.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			p, id := g.withInput(func(c *corev1.Container) { c.StdinOnce = true })
			watcher := g.attach(id, false)
			a := g.attach(id, true)
			a.in <- "one\ntwo"
			end(a)
			if err := g.ended(watcher); err != nil { // with the container
				t.Error(err)
			}
			if out, _ := watcher.text(); !strings.HasSuffix(out, "over\n") || !strings.HasPrefix(out, "got one\n") {
				t.Errorf("it wrote %q", out)
			}
			<-a.done
			if out, _ := a.text(); name == "input ends" && !strings.HasSuffix(out, "over\n") {
				t.Errorf("the one whose input it was saw %q", out)
			}
			if c := p.exit(); c.ExitCode != 5 {
				t.Errorf("exit code %d", c.ExitCode)
			}
		})
	}
}

func TestAttachTerminal(t *testing.T) {
	g := newRig(t)
	p := g.pod("tty")
	c := p.add("main", sh(`trap 'stty size' WINCH; while :; do read -r x && echo "got $x"; done`)...)
	c.Stdin, c.TTY, c.StdinOnce = true, true, true
	p.sandbox()
	id := p.start("main", 0).ID
	sizes := make(chan kv.TermSize, 1)
	out := &bytes.Buffer{}
	a := &attached{}
	in := make(chan string)
	ready := make(chan struct{})
	ctx, cancel := context.WithCancel(g.ctx)
	done := make(chan error)
	go func() {
		done <- g.rt.Attach(ctx, id, nodeagent.Attachment{
			Attached: func() error { close(ready); return nil }, Stdout: shownTo{a, out}, Resize: sizes,
			Stdin: func(ctx context.Context) ([]byte, error) {
				select {
				case s := <-in:
					return []byte(s), nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
		})
	}()
	<-ready
	in <- "hello\n"
	text := func() string { a.mu.Lock(); defer a.mu.Unlock(); return out.String() }
	pollEach(t, 5*time.Millisecond, "an answer, raw", func() bool { return strings.Contains(text(), "got hello\r\n") })
	sizes <- kv.TermSize{Width: 120, Height: 33}
	pollEach(t, 5*time.Millisecond, "the size", func() bool { return strings.Contains(text(), "33 120") })
	cancel()
	<-done
	// One can come back to a terminal, also after a restart of the agent.
	g.reopen()
	again := g.attach(id, true)
	again.in <- "again\n"
	g.awaitText(again, "got again\r\n")
}

func TestAttachWithoutInput(t *testing.T) {
	g := newRig(t)
	p := g.pod("none")
	p.add("main", sh(`cat; echo empty; sleep 100000`)...)
	p.sandbox()
	id := p.start("main", 0).ID
	a := g.attach(id, true)
	a.in <- "lost"
	close(a.in)
	if err := g.ended(a); err != nil {
		t.Error(err)
	}
}

// stuck takes nothing.
type stuck struct{ until <-chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}

// TestAttachSlow: neither the container, nor its log, nor another reader waits
// for one who does not read.
func TestAttachSlow(t *testing.T) {
	g := newRig(t)
	p := g.pod("busy")
	p.add("main", sh(`until [ -e /go ]; do sleep 0.05; done; i=0; while [ $i -lt 20000 ]; do echo "line $i 0123456789012345678901234567890123456789012345678901234567890123456789"; i=$((i+1)); done; echo finished`)...)
	p.sandbox()
	id := p.start("main", 0).ID
	until := make(chan struct{})
	done := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		done <- g.rt.Attach(g.ctx, id, nodeagent.Attachment{Attached: func() error { close(ready); return nil }, Stdout: stuck{until}})
	}()
	<-ready
	other := g.attach(id, false)
	g.says(id, "touch /go")
	began := time.Now()
	if err := g.ended(other); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("the container took %s", took)
	}
	if out, _ := other.text(); !strings.HasSuffix(out, "line 19999 0123456789012345678901234567890123456789012345678901234567890123456789\nfinished\n") {
		t.Errorf("the other saw %d bytes", len(out))
	}
	close(until)
	if err := <-done; !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("the slow one: %v", err)
	}
	if log := p.output(p.exit()); !strings.HasSuffix(log, "finished\n") {
		t.Errorf("the log ends %q", log[max(0, len(log)-100):])
	}
}
