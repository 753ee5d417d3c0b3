package containerd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// ownDaemon is a containerd of one test's own, which may be killed.
func ownDaemon(t *testing.T) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp(testDir, "")
	if err != nil {
		t.Fatal(err)
	}
	d := NewDaemon(DaemonOptions{DataDir: filepath.Join(dir, "d"), RunDir: filepath.Join(dir, "r"),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if d.Known() {
		t.Error("a daemon that was never started is known")
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if d.running() != nil {
			t.Error("it runs after Stop")
		}
	})
	return d
}

// keep runs the daemon's keeper until the function returned is called.
func keep(t *testing.T, d *Daemon) (leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return func() { cancel(); running.Wait() }
}

// rigOn is a rig on a daemon of the test's own.
func rigOn(t *testing.T, d *Daemon) *rig {
	g := newRig(t)
	g.shut()
	g.opts.Address, g.opts.State = d.Address(), d.State()
	g.open()
	return g
}

// containerd's database holds the environment of every container, and with it
// Secrets: other users do not get to it.
func TestOthersDoNotReadTheDatabase(t *testing.T) {
	d := ownDaemon(t)
	found, err := filepath.Glob(filepath.Join(d.opts.DataDir, "root", "*", "meta.db"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no database: %v", err)
	}
	info, err := os.Stat(d.opts.DataDir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(found[0]); err == nil {
		t.Logf("the database itself has mode %v", info.Mode())
	}
}

// A killed containerd is replaced; containers keep their processes, Watch goes
// on, and the next start works.
func TestKilledDaemon(t *testing.T) {
	d := ownDaemon(t)
	defer keep(t, d)()
	g := rigOn(t, d)
	p := g.pod("steady")
	p.add("main", "sleep", "1000")
	p.sandbox()
	c := p.start("main", 0)
	pid := g.pidOf(c.ID)

	for range 3 {
		old := d.running()
		began := time.Now()
		if err := syscall.Kill(old.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-old.dead
		eventually(t, "another runs", func() bool { now := d.running(); return now != nil && now.pid != old.pid })
		if s := p.look(); s.Containers[0].State != pod.ContainerRunning {
			t.Fatalf("seen %+v", s)
		}
		t.Logf("answers again after %s", time.Since(began).Round(time.Millisecond))
		if now := g.pidOf(c.ID); now != pid {
			t.Errorf("pid %d, before %d", now, pid)
		}
	}
	q := g.pod("next")
	q.add("main", "sh", "-c", "exit 3")
	if c, _ := q.run(); c.ExitCode != 3 {
		t.Errorf("seen %+v", c)
	}
	p.remove()
	q.remove()
}

// A container that ends while there is no containerd is seen to have ended.
func TestEndWithoutDaemon(t *testing.T) {
	d := ownDaemon(t)
	g := rigOn(t, d)
	p := g.pod("short")
	p.add("main", "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.05; done")
	p.add("other", "sleep", "1000")
	p.sandbox()
	c := p.start("main", 0)
	p.start("other", 0)
	pid := g.pidOf(c.ID)
	eventually(t, "it would honour TERM", func() bool { return catches(t, pid, syscall.SIGTERM) })
	old := d.running()
	if err := syscall.Kill(old.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-old.dead
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process ends", func() bool { return !alive(pid, c.ID) })
	defer keep(t, d)()
	s := p.await("it ended", func(s pod.Seen) bool { return s.Containers[0].State == pod.ContainerExited })
	version, err := g.rt.Version(g.ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := int32(4)
	if strings.HasPrefix(version, "containerd://v2") || strings.HasPrefix(version, "containerd://2") {
		want = exitUnknown // 2.x drops a task that it finds stopped when it starts
	}
	if s.Containers[0].ExitCode != want || s.Containers[1].State != pod.ContainerRunning {
		t.Errorf("seen %+v", s.Containers)
	}
}

// A daemon is found again by whoever starts next, and left alone by who leaves.
func TestDaemonIsFoundAgain(t *testing.T) {
	d := ownDaemon(t)
	pid := d.running().pid
	keep(t, d)()
	again := NewDaemon(d.opts)
	if !again.Known() {
		t.Error("it is not known")
	}
	if err := again.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := again.running(); now == nil || now.pid != pid {
		t.Errorf("another one was started beside %d: %+v", pid, now)
	}
	// Its end is noticed although it is not a child of who found it.
	leave := keep(t, again)
	defer leave()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another runs", func() bool { now := again.running(); return now != nil && now.pid != pid })
}

func TestDaemonThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	long := NewDaemon(DaemonOptions{DataDir: dir, RunDir: filepath.Join(dir, strings.Repeat("x", 100))})
	if err := long.Start(t.Context()); !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("a long path: %v", err)
	}
	missing := NewDaemon(DaemonOptions{DataDir: dir, RunDir: filepath.Join(testDir, "m"), Binary: "no-such-containerd"})
	if err := missing.Start(t.Context()); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a missing binary: %v", err)
	}
	script := filepath.Join(dir, "broken")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho starting; echo it is broken >&2; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	broken := NewDaemon(DaemonOptions{DataDir: dir, RunDir: filepath.Join(testDir, "b"), Binary: script})
	if err := broken.Start(t.Context()); !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "it is broken") {
		t.Errorf("a broken binary: %v", err)
	}
}

func TestDaemonLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range maxDaemonLog>>20 + 1 {
		if _, err := f.Write(bytes.Repeat([]byte{'x'}, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := boundLog(path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("after\n"); err != nil { // containerd goes on writing
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "after\n" {
		t.Errorf("%.20q, %v", text, err)
	}
	if info, err := os.Stat(path + ".1"); err != nil || info.Size() <= maxDaemonLog {
		t.Errorf("%v, %v", info, err)
	}
	if got := lastLine(path); got != "after" {
		t.Errorf("last line %q", got)
	}
}

// Pods wait for a containerd that died once or twice; for one that dies again and
// again the machine is not worn out.
func TestRestartPause(t *testing.T) {
	for _, c := range []struct {
		failures int
		hopeful  bool
		want     time.Duration
	}{
		{1, true, 5 * time.Millisecond}, {2, true, 10 * time.Millisecond}, {20, true, 500 * time.Millisecond},
		{21, true, time.Second}, {24, true, 8 * time.Second}, {25, true, 10 * time.Second}, {1 << 30, true, 10 * time.Second},
		{1, false, 5 * time.Millisecond}, {8, false, 640 * time.Millisecond}, {30, false, 10 * time.Second},
	} {
		if got := restartPause(c.failures, c.hopeful); got != c.want {
			t.Errorf("after %d failures, hopeful %v: %s, want %s", c.failures, c.hopeful, got, c.want)
		}
	}
}

// A containerd that dies again and again makes its node not ready, with the
// reason, though each of them answers; one that lives is trusted again.
func TestDaemonThatDiesAgainAndAgain(t *testing.T) {
	d := ownDaemon(t)
	defer keep(t, d)()
	g := rigOn(t, d)
	g.rt.opts.Trouble = d.Trouble
	for i := range troubleFrom {
		if _, err := g.rt.Version(g.ctx); err != nil {
			t.Errorf("after %d deaths: %v", i, err)
		}
		old := d.running()
		if err := syscall.Kill(old.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-old.dead
		eventually(t, "another is kept", func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.process.pid != old.pid
		})
	}
	_, err := g.rt.Version(g.ctx)
	if !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "containerd died or failed to start 6 times in a row; its log is "+d.logFile()) {
		t.Errorf("after %d deaths: %v", troubleFrom, err)
	}
	d.mu.Lock()
	d.process.since = time.Now().Add(-restartHealthy - time.Second) // as if it had lived so long
	d.mu.Unlock()
	if _, err := g.rt.Version(g.ctx); err != nil {
		t.Errorf("after a long life: %v", err)
	}
}

// A containerd that has ended is not killed again: its number may be another's.
func TestEndOfADaemonThatEnded(t *testing.T) {
	other := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	lives := own(other)
	dead := make(chan struct{})
	close(dead)
	if err := (&process{pid: other.Process.Pid, dead: dead}).end(t.Context(), 0); err != nil {
		t.Error(err)
	}
	select {
	case <-lives.dead:
		t.Error("who has its number now was killed")
	case <-time.After(100 * time.Millisecond):
	}
	if err := other.Process.Kill(); err != nil {
		t.Error(err)
	}
	<-lives.dead
}
