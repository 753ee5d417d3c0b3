package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// running starts a container that does nothing.
func (g *rig) running(name string) (*testPod, string) {
	g.tb.Helper()
	p := g.pod(name)
	p.add("main", "sleep", "100000")
	p.sandbox()
	return p, p.start("main", 0).ID
}

// input gives text to a command, piece by piece, and then its end.
func input(pieces ...string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		if len(pieces) == 0 {
			return nil, io.EOF
		}
		p := pieces[0]
		pieces = pieces[1:]
		return []byte(p), nil
	}
}

func sh(script string) []string { return []string{"sh", "-c", script} }

func TestCommand(t *testing.T) {
	g := newRig(t)
	p, id := g.running("shell")
	p.Spec.Containers[0].WorkingDir = "/"
	before := g.counts()
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for name, c := range map[string]struct {
		command  nodeagent.Command
		code     int
		out, err string
	}{
		"exit code":      {nodeagent.Command{Argv: sh("exit 42")}, 42, "", ""},
		"both outputs":   {nodeagent.Command{Argv: sh("echo one; echo two >&2")}, 0, "one\n", "two\n"},
		"input":          {nodeagent.Command{Argv: sh("cat; echo end"), Stdin: input("a", "b\n")}, 0, "ab\nend\n", ""},
		"no input":       {nodeagent.Command{Argv: sh("cat; echo end"), Stdin: input()}, 0, "end\n", ""},
		"much":           {nodeagent.Command{Argv: sh("cat"), Stdin: input(big)}, 0, big, ""},
		"input not read": {nodeagent.Command{Argv: sh("exec <&-; sleep 0.2; echo done"), Stdin: input(big, big)}, 0, "done\n", ""},
		"terminal":       {nodeagent.Command{Argv: sh("test -t 0 && test -t 1 && echo $TERM; exit 3"), TTY: true}, 3, "xterm\r\n", ""},
		"terminal's end": {nodeagent.Command{Argv: sh("stty -echo; cat; echo end"), TTY: true, Stdin: input("a\n")}, 0, "", ""},
		"leaves one":     {nodeagent.Command{Argv: sh("sleep 3 & echo left")}, 0, "left\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			c.command.Stdout, c.command.Stderr = &out, &errs
			code, err := g.rt.Command(g.ctx, id, c.command)
			if err != nil || code != c.code {
				t.Fatalf("exit code %d, want %d: %v", code, c.code, err)
			}
			if name == "terminal's end" {
				if !strings.HasSuffix(out.String(), "end\r\n") {
					t.Errorf("output %q", out.String())
				}
				return
			}
			if out.String() != c.out || errs.String() != c.err {
				t.Errorf("output %.100q, want %.100q; errors %q, want %q", out.String(), c.out, errs.String(), c.err)
			}
		})
	}
	g.asBefore(t, before)
}

// asBefore waits until there is no more of anything than before.
func (g *rig) asBefore(t *testing.T, before map[string]int) {
	t.Helper()
	why := ""
	slack := map[string]int{"goroutines": 2, "descriptors": 2, "threads": 6}
	defer func() {
		if t.Failed() {
			t.Log(why)
		}
	}()
	pollEach(t, 100*time.Millisecond, "as many of everything as before", func() bool {
		after := g.counts()
		for what, n := range before {
			if after[what]-n > slack[what] {
				why = fmt.Sprintf("%s: %d, before %d", what, after[what], n)
				return false
			}
		}
		return true
	})
}

func TestCommandThatIsNotThere(t *testing.T) {
	g := newRig(t)
	p, id := g.running("shell")
	for argv, want := range map[string]struct {
		text string
		code int
	}{
		"nope": {`OCI runtime exec failed: exec failed: unable to start container process: exec: "nope": executable file not found in $PATH`, 127},
		"/etc": {`OCI runtime exec failed: exec failed: unable to start container process: exec: "/etc": `, 126},
	} {
		_, err := g.rt.Command(g.ctx, id, nodeagent.Command{Argv: []string{argv}})
		var e *nodeagent.CommandError
		if !errors.As(err, &e) || !strings.HasPrefix(e.Text, want.text) || e.Code != want.code || !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%s: %v (%+v)", argv, err, e)
		}
		_, err = g.rt.Command(g.ctx, id, nodeagent.Command{Argv: []string{argv}, TTY: true, Stdin: input("x")})
		if !errors.As(err, &e) || !strings.HasPrefix(e.Text, want.text) {
			t.Errorf("%s on a terminal: %v", argv, err)
		}
	}
	if left := g.execFIFOs(p); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := g.rt.Command(g.ctx, "no-such", nodeagent.Command{Argv: []string{"true"}}); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("no container: %v", err)
	}
}

// execFIFOs are the FIFOs of commands in a pod.
func (g *rig) execFIFOs(p *testPod) []string {
	g.tb.Helper()
	files, err := filepath.Glob(filepath.Join(g.rt.podDir(p.UID), "io", "*.x*"))
	if err != nil {
		g.tb.Fatal(err)
	}
	return files
}

// commandsIn are the command lines that run in a container, but for its own.
func (g *rig) commandsIn(id string) (lines []string) {
	g.tb.Helper()
	rec, ok, err := g.rt.record(g.ctx, id)
	if err != nil || !ok {
		g.tb.Fatalf("record: %v", err)
	}
	for _, p := range g.rt.containerProcesses(rec) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		line := strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
		if line != "" && line != "sleep 100000" {
			lines = append(lines, line)
		}
	}
	return lines
}

// A command whose client is gone ends, with what it started, whatever it does
// against it; on a terminal and without one.
func TestCommandEndsWithItsClient(t *testing.T) {
	g := newRig(t)
	p, id := g.running("shell")
	before := g.counts()
	for name, script := range map[string]string{
		"one":       "echo up; sleep 5000",
		"several":   "sleep 5001 & sleep 5002 | cat & echo up; sleep 5003",
		"stubborn":  "trap '' HUP TERM; sleep 5004 & echo up; while :; do sleep 1; done",
		"no reader": "echo up; yes 5005",
		"sets sid":  "setsid sleep 5006 & echo up; sleep 5007",
	} {
		for _, tty := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, tty %v", name, tty), func(t *testing.T) {
				ctx, cancel := context.WithCancel(g.ctx)
				defer cancel()
				up := make(chan struct{})
				var wg sync.WaitGroup
				wg.Go(func() {
					_, err := g.rt.Command(ctx, id, nodeagent.Command{
						Argv: sh(script), TTY: tty, Stdout: &signalling{up: up, ctx: ctx},
						Stdin: func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
					})
					if err == nil {
						t.Error("it ended well")
					}
				})
				select {
				case <-up:
				case <-time.After(patience):
					t.Error("it does not begin")
				}
				began := time.Now()
				cancel()
				wg.Wait()
				eventually(t, "nothing of it runs", func() bool { return len(g.commandsIn(id)) == 0 })
				if d := time.Since(began); d > hangUpGrace+soon {
					t.Errorf("it took %v", d)
				}
				if left := g.execFIFOs(p); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		}
	}
	g.asBefore(t, before)
}

// A probe that takes too long leaves nothing running.
func TestExecThatTakesTooLong(t *testing.T) {
	g := newRig(t)
	p, id := g.running("shell")
	ctx, cancel := context.WithTimeout(g.ctx, 200*time.Millisecond)
	defer cancel()
	if _, _, err := g.rt.Exec(ctx, id, sh("sleep 8001 & sleep 8002; true")); err == nil {
		t.Error("it ended well")
	}
	eventually(t, "nothing of it is left", func() bool { return len(g.commandsIn(id)) == 0 && len(g.execFIFOs(p)) == 0 })
}

// signalling tells of the first output, and then takes no more until ctx is done.
type signalling struct {
	once sync.Once
	up   chan struct{}
	ctx  context.Context
}

func (s *signalling) Write(p []byte) (int, error) {
	first := false
	s.once.Do(func() { close(s.up); first = true })
	if first {
		return len(p), nil
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// A terminal has the size that it was last given.
func TestCommandResize(t *testing.T) {
	g := newRig(t)
	_, id := g.running("shell")
	sizes := make(chan kv.TermSize)
	var out bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() {
		code, err := g.rt.Command(g.ctx, id, nodeagent.Command{
			Argv: sh(`until test "$(stty size 2>/dev/null)" = "33 101"; do sleep 0.02; done; stty size`), TTY: true, Stdout: &out, Resize: sizes,
		})
		if err != nil || code != 0 {
			t.Errorf("exit code %d, %v", code, err)
		}
	})
	sizes <- kv.TermSize{Width: 80, Height: 24}
	sizes <- kv.TermSize{Width: 101, Height: 33}
	wg.Wait()
	if out.String() != "33 101\r\n" {
		t.Errorf("output %q", out.String())
	}
}

// Output waits for its reader for as long as that takes, also after the
// command's end.
func TestCommandWaitsForItsReader(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newRig(t)
	_, id := g.running("shell")
	slow := &slowWriter{each: drainWithin / 8}
	code, err := g.rt.Command(g.ctx, id, nodeagent.Command{Argv: sh("head -c 700000 /dev/zero"), Stdout: slow})
	if err != nil || code != 0 || slow.n != 700000 {
		t.Errorf("exit code %d, %v: %d bytes", code, err, slow.n)
	}
}

type slowWriter struct {
	n    int
	each time.Duration
}

func (w *slowWriter) Write(p []byte) (int, error) {
	<-time.After(w.each)
	w.n += len(p)
	return len(p), nil
}

// Many at once do not get in each other's way.
func TestCommandsAtOnce(t *testing.T) {
	g := newRig(t)
	_, id := g.running("shell")
	before := g.counts()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			var out bytes.Buffer
			text := fmt.Sprintf("number %d", i)
			code, err := g.rt.Command(g.ctx, id, nodeagent.Command{Argv: sh(fmt.Sprintf("cat; exit %d", i)), Stdin: input(text), Stdout: &out})
			if err != nil || code != i || out.String() != text {
				t.Errorf("%d: exit code %d, output %q, %v", i, code, out.String(), err)
			}
		})
	}
	wg.Wait()
	g.asBefore(t, before)
}

// Commands that a killed agent left are ended by the next one.
func TestCommandsOfAKilledAgent(t *testing.T) {
	g := newRig(t)
	p, id := g.running("shell")
	for _, tty := range []bool{true, false} {
		g.leave(id, nodeagent.Command{Argv: sh("trap '' HUP; sleep 6001 & sleep 6002; sleep 6003"), TTY: tty, Stdin: input()})
	}
	x, err := g.rt.newExecution(g.ctx, id, nodeagent.Command{Argv: sh("true")})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.open(&tasks.ExecProcessRequest{}); err != nil { // killed right after
		t.Fatal(err)
	}
	x.close()
	if len(g.commandsIn(id)) == 0 || len(g.execFIFOs(p)) == 0 {
		t.Fatal("there is nothing left to end")
	}
	g.reopen()
	eventually(t, "nothing of them is left", func() bool {
		p.look()
		return len(g.commandsIn(id)) == 0 && len(g.execFIFOs(p)) == 0
	})
	var out bytes.Buffer
	if code, err := g.rt.Command(g.ctx, id, nodeagent.Command{Argv: sh("echo well"), Stdout: &out}); err != nil || code != 0 || out.String() != "well\n" {
		t.Errorf("afterwards: exit code %d, %q, %v", code, out.String(), err)
	}
}

// leave starts a command and forgets it, as an agent that is killed does.
func (g *rig) leave(id string, c nodeagent.Command) {
	g.tb.Helper()
	must := func(err error) {
		g.tb.Helper()
		if err != nil {
			g.tb.Fatal(err)
		}
	}
	x, err := g.rt.newExecution(g.ctx, id, c)
	must(err)
	process, err := x.process(g.ctx)
	must(err)
	request := &tasks.ExecProcessRequest{ContainerID: id, ExecID: x.exec, Spec: process, Terminal: x.TTY}
	must(x.open(request))
	_, err = g.rt.client.TaskService().Exec(g.ctx, request)
	must(err)
	_, err = g.rt.client.TaskService().Start(g.ctx, &tasks.StartRequest{ContainerID: id, ExecID: x.exec})
	must(err)
	x.close()
}
