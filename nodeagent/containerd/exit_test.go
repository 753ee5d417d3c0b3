package containerd

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

func TestOutputAndExitCode(t *testing.T) {
	g := newRig(t)
	p := g.pod("hello")
	p.add("main", "sh", "-c", "echo out; echo err >&2; exit 7")
	c, out := p.run()
	if c.ExitCode != 7 || c.OOMKilled || c.FinishedAt.Before(c.StartedAt) || c.StartedAt.Before(c.CreatedAt) {
		t.Errorf("seen %+v", c)
	}
	if !strings.Contains(out, "out\n") || !strings.Contains(out, "err\n") {
		t.Errorf("log holds %q", out)
	}
}

// A start that runc refuses leaves an exited container that says why.
func TestStartErrors(t *testing.T) {
	g := newRig(t)
	for name, command := range map[string][]string{
		"executable file not found": {"nope"},
		"no such file":              {"/nope"},
		"permission denied":         {"/etc/passwd"},
	} {
		p := g.pod("broken")
		p.add("main", command...)
		p.sandbox()
		c := p.start("main", 0)
		if c.State != pod.ContainerExited || c.ExitCode != 128 || !strings.Contains(c.StartError, name) || strings.Contains(c.StartError, "\n") {
			t.Errorf("Start of %v: %+v", command, c)
		}
		g.reopen()
		if seen := p.look().Containers; len(seen) != 1 || seen[0].StartError != c.StartError || seen[0].FinishedAt.IsZero() {
			t.Errorf("seen after a restart: %+v", seen)
		}
	}
}

func TestOutOfMemory(t *testing.T) {
	g := newRig(t)
	p := g.pod("greedy")
	c := p.add("main", "sh", "-c", "x=x; while :; do x=$x$x; done")
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}
	end, _ := p.run()
	if !end.OOMKilled || end.ExitCode != 137 {
		t.Errorf("seen %+v, want killed for want of memory", end)
	}
	// Nothing of a container without OOM says so.
	q := g.pod("modest")
	q.add("main", "sh", "-c", "kill -9 $$")
	if end, _ := q.run(); end.OOMKilled {
		t.Errorf("seen %+v", end)
	}
}

// An agent that is down when a container ends learns all of it later.
func TestEndWhileNobodyLooks(t *testing.T) {
	g := newRig(t)
	p := g.pod("alone")
	c := p.add("main", "sh", "-c", "sleep 0.3; x=x; while :; do x=$x$x; done")
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}
	p.add("other", "sh", "-c", "sleep 0.3; exit 5")
	p.sandbox()
	began := p.start("main", 0)
	p.start("other", 0)
	g.shut()
	awaitEnd(t, began.ID)
	g.open()
	s := p.await("both ended", func(s pod.Seen) bool {
		return s.Containers[0].State == pod.ContainerExited && s.Containers[1].State == pod.ContainerExited
	})
	if a, b := s.Containers[0], s.Containers[1]; !a.OOMKilled || a.ExitCode != 137 || b.ExitCode != 5 || b.OOMKilled {
		t.Errorf("seen %+v and %+v", a, b)
	}
	// The kernel counts from when the process was made, in ticks.
	if a := s.Containers[0]; a.StartedAt.Before(began.CreatedAt.Add(-time.Second)) || a.StartedAt.After(began.StartedAt.Add(time.Second)) || a.FinishedAt.Before(a.StartedAt) {
		t.Errorf("made at %v, started at %v; seen %v to %v", began.CreatedAt, began.StartedAt, a.StartedAt, a.FinishedAt)
	}
}

// awaitEnd waits for a container's end past any Runtime.
func awaitEnd(t *testing.T, id string) {
	t.Helper()
	c, err := dial(testDaemon.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.TaskService().Wait(t.Context(), &tasks.WaitRequest{ContainerID: id}); err != nil {
		t.Fatal(err)
	}
}

// When all of a pod has ended its shim goes, and its exits stay known.
func TestExitsOutliveTheShim(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newRig(t)
	p := g.pod("done")
	p.add("main", "sh", "-c", "exit 9")
	end, _ := p.run()
	eventually(t, "the task is gone", func() bool {
		task, err := g.rt.process(g.ctx, end.ID)
		if err != nil {
			t.Fatal(err)
		}
		return task == nil
	})
	g.reopen()
	again := p.look().Containers[0]
	if again.ExitCode != 9 || again.State != pod.ContainerExited || !again.FinishedAt.Equal(end.FinishedAt) || !again.StartedAt.Equal(end.StartedAt) {
		t.Errorf("seen %+v, before %+v", again, end)
	}
	// The next attempt needs a new shim.
	p.Spec.Containers[0].Command = []string{"sleep", "1000"}
	if c := p.start("main", 1); c.State != pod.ContainerRunning {
		t.Errorf("the next attempt: %+v", c)
	}
}

// eventually polls what no event tells of.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	pollEach(tb, 20*time.Millisecond, what, is)
}

func pollEach(tb testing.TB, pause time.Duration, what string, is func() bool) {
	tb.Helper()
	limit := time.After(patience)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-limit:
			tb.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func TestStopSignals(t *testing.T) {
	for name, want := range map[string]int{"": 15, "TERM": 15, "SIGQUIT": 3, "sigusr1": 10, "9": 9, "RTMIN+3": 37, "SIGRTMAX-1": 63, "RTMIN": 34} {
		if got, err := signalNumber(name); err != nil || int(got) != want {
			t.Errorf("%q: %v, %v; want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"NOPE", "0", "99", "RTMIN+99", "SIG"} {
		if got, err := signalNumber(name); err == nil {
			t.Errorf("%q: %v, want an error", name, got)
		}
	}
}

func TestStopSignalOfTheImage(t *testing.T) {
	g := newRig(t)
	p := g.pod("quit")
	c := p.add("main", "sh", "-c", "trap 'exit 3' QUIT; trap 'exit 15' TERM; echo ready; while :; do sleep 0.05; done")
	c.Image = "stopper:1"
	p.sandbox()
	started := p.start("main", 0)
	eventually(t, "it is ready", func() bool { return strings.Contains(readLog(t, started.LogPath), "ready") })
	at := time.Now()
	if err := g.rt.Signal(g.ctx, started.ID, "", at); err != nil {
		t.Fatal(err)
	}
	end := p.exit()
	if end.ExitCode != 3 || !end.StopRequested.Equal(at) {
		t.Errorf("seen %+v, want QUIT sent and the request at %v", end, at)
	}
}

func TestExec(t *testing.T) {
	g := newRig(t)
	p := g.pod("exec")
	p.add("main", "sleep", "1000")
	p.sandbox()
	c := p.start("main", 0)
	code, out, err := g.rt.Exec(g.ctx, c.ID, []string{"sh", "-c", "echo one; echo two >&2; exit 4"})
	if err != nil || code != 4 || len(out) != 8 {
		t.Errorf("Exec: %d, %q, %v", code, out, err)
	}
	if _, _, err := g.rt.Exec(g.ctx, c.ID, []string{"/nope"}); err == nil {
		t.Error("a command that is not there was executed")
	}
	code, out, err = g.rt.Exec(g.ctx, c.ID, []string{"sh", "-c", "head -c 1000000 /dev/zero"})
	if err != nil || code != 0 || len(out) != maxExecOutput {
		t.Errorf("Exec with much output: %d, %d bytes, %v", code, len(out), err)
	}
	short, cancel := context.WithTimeout(g.ctx, 200*time.Millisecond)
	defer cancel()
	if _, _, err := g.rt.Exec(short, c.ID, []string{"sleep", "1000"}); err == nil {
		t.Error("a command that never ends ended")
	}
	eventually(t, "the command is gone", func() bool {
		_, out, err := g.rt.Exec(g.ctx, c.ID, []string{"sh", "-c", "ls /proc | grep -c '^[0-9]'"})
		// sleep, and the shell with ls and grep
		return err == nil && (string(out) == "4\n" || string(out) == "3\n")
	})
}
