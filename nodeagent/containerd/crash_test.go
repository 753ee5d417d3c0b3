package containerd

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
)

// shimOf finds the shim that serves a process: its parent.
func shimOf(tb testing.TB, pid int) int {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				tb.Fatal(err)
			}
			return n
		}
	}
	tb.Fatalf("process %d has no parent", pid)
	return 0
}

// Containers whose shim dies are killed by containerd; they are seen to have
// ended, and the pod can start them again and be removed.
func TestKilledShim(t *testing.T) {
	g := newRig(t)
	p := g.pod("victim")
	p.add("a", "sleep", "1000")
	p.add("b", "sleep", "1000")
	p.sandbox()
	a, b := p.start("a", 0), p.start("b", 0)
	shim := shimOf(t, g.pidOf(a.ID))
	if other := shimOf(t, g.pidOf(b.ID)); other != shim {
		t.Fatalf("shims %d and %d", shim, other)
	}
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s := p.await("both ended", func(s pod.Seen) bool {
		return s.Containers[0].State == pod.ContainerExited && s.Containers[1].State == pod.ContainerExited
	})
	for _, c := range s.Containers {
		if c.ExitCode != 137 || c.FinishedAt.IsZero() || c.StartedAt.IsZero() {
			t.Errorf("seen %+v", c)
		}
	}
	if c := p.start("a", 1); c.State != pod.ContainerRunning {
		t.Errorf("the next attempt: %+v", c)
	}
	p.remove()
	if left := mountsOf(t, g); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}

func mountsOf(tb testing.TB, g *rig) []string {
	tb.Helper()
	m, err := mountsBelow(g.opts.RunDir)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// Two instances on one containerd do not see and do not touch each other.
func TestTwoInstances(t *testing.T) {
	one, two := newRig(t), newRig(t)
	p, q := one.pod("one"), two.pod("two")
	q.UID = p.UID // even so
	two.wakes[q.UID] = q.wake
	var ids []string
	for _, p := range []*testPod{p, q} {
		p.add("main", "sleep", "1000")
		p.sandbox()
		ids = append(ids, p.start("main", 0).ID)
	}
	if ids[0] == ids[1] {
		t.Fatal("both have one id")
	}
	for i, g := range []*rig{one, two} {
		all, err := g.rt.Seen(g.ctx)
		if err != nil || len(all) != 1 || len(all[0].Containers) != 1 || all[0].Containers[0].ID != ids[i] {
			t.Errorf("instance %d sees %+v, %v", i, all, err)
		}
		if err := g.rt.Remove(g.ctx, ids[1-i], true); err != nil {
			t.Errorf("Remove of what is not there: %v", err)
		}
		if err := g.rt.Signal(g.ctx, ids[1-i], "KILL", time.Now()); err != nil {
			t.Errorf("Signal to what is not there: %v", err)
		}
	}
	pid := two.pidOf(ids[1])
	if err := one.rt.DestroyAll(one.ctx); err != nil {
		t.Fatal(err)
	}
	if s := q.look(); len(s.Containers) != 1 || s.Containers[0].State != pod.ContainerRunning || two.pidOf(ids[1]) != pid {
		t.Errorf("after the other instance was destroyed: %+v", s)
	}
	if s := p.look(); len(s.Containers) > 0 || s.Sandbox.Ready {
		t.Errorf("destroyed, and there is %+v", s)
	}
}

// A restart of the machine takes processes, mounts and the run directory, and
// leaves records: what ran has ended, what did not is to be removed.
func TestRestartOfTheMachine(t *testing.T) {
	d := ownDaemon(t)
	g := rigOn(t, d)
	p := g.pod("before")
	p.add("main", "sleep", "1000")
	p.sandbox()
	c := p.start("main", 0)
	g.shut()
	pid := g.pidOf(c.ID)
	shim := shimOf(t, pid)
	if err := d.running().end(g.ctx, 0); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{shim, pid} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the processes end", func() bool { return !alive(pid, c.ID) })
	for _, run := range []string{g.opts.RunDir, d.opts.RunDir} {
		eventually(t, "nothing is in use any more", func() bool { return clearTestDir(run) == nil })
	}
	if err := d.Start(g.ctx); err != nil {
		t.Fatal(err)
	}
	g.open()
	all, err := g.rt.Seen(g.ctx)
	if err != nil || len(all) != 1 {
		t.Fatalf("seen %+v, %v", all, err)
	}
	s := all[0]
	if s.Sandbox.Ready || s.Key.Name != "before" || s.Containers[0].State != pod.ContainerExited || s.Containers[0].ExitCode != exitUnknown {
		t.Errorf("seen %+v", s)
	}
	p.sandbox()
	if c := p.start("main", 1); c.State != pod.ContainerRunning {
		t.Errorf("the next attempt: %+v", c)
	}
	p.remove()
}

// A Runtime that is closed during a pull cuts it off and leaves nothing open.
func TestCloseDuringPull(t *testing.T) {
	g, reg := newRig(t), newWatchedRegistry(t)
	if err := push(reg.URL, "slow:1", unlike(t, "")); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 100)
	reg.behave(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	failed := make(chan error, 1)
	rt := g.rt
	go func() {
		_, err := rt.Image(context.Background(), nodeagent.ImageRequest{Image: reg.host() + "/slow:1", Policy: corev1.PullAlways})
		failed <- err
	}()
	<-asked
	g.reopen()
	if err := <-failed; err == nil {
		t.Error("a pull that was cut off worked")
	}
}

// The pod's folder names what is in it as log collectors know it.
func TestLogPath(t *testing.T) {
	g := newRig(t)
	p := g.pod("web")
	p.add("main", "true")
	c, _ := p.run()
	if want := filepath.Join(g.opts.DataDir, "logs", "pods", "default_web_"+string(p.UID), "main", "0.log"); c.LogPath != want {
		t.Errorf("log at %s, want %s", c.LogPath, want)
	}
}

// A process that containerd has forgotten, because it was killed together with
// the shim, ends before its container is started again.
func TestForgottenProcess(t *testing.T) {
	d := ownDaemon(t)
	g := rigOn(t, d)
	p := g.pod("forgotten")
	p.add("main", "sleep", "1000")
	p.sandbox()
	c := p.start("main", 0)
	pid := g.pidOf(c.ID)
	shim := shimOf(t, pid)
	if err := d.running().end(g.ctx, 0); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := clearTestDir(filepath.Join(d.opts.RunDir, "state")); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(g.ctx); err != nil {
		t.Fatal(err)
	}
	defer keep(t, d)()
	if !alive(pid, c.ID) {
		t.Fatal("the process is gone: this tests nothing")
	}
	if s := p.look(); s.Containers[0].State != pod.ContainerExited {
		t.Errorf("seen %+v", s)
	}
	if err := g.rt.Remove(g.ctx, c.ID, true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process ends", func() bool { return !alive(pid, c.ID) })
	if again := p.start("main", 0); again.State != pod.ContainerRunning {
		t.Errorf("started again: %+v", again)
	}
	p.remove()
}
