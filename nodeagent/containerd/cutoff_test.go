package containerd

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// A shim whose start was cut off waits for ever, and containerd would hand it
// every further container of the pod: it is ended, and the pod starts.
func TestShimThatHangs(t *testing.T) {
	g := newRig(t)
	p := g.pod("hangs")
	p.add("main", "sleep", "1000")
	p.sandbox()
	left := cutOffStart(t, p, false)
	g.hangingShim(p, left.ID)
	g.reopen()
	began := time.Now()
	if c := p.start("main", 0); c.State != pod.ContainerRunning || c.ID == left.ID {
		t.Errorf("started %+v", c)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("it took %v", took)
	}
	if pids := g.shims(p.UID); len(pids) != 1 {
		t.Errorf("the pod has shims %v", pids)
	}
	p.remove()
}

// One that comes only after its container was removed goes with the pod.
func TestShimThatHangsLate(t *testing.T) {
	g := newRig(t)
	p := g.pod("late")
	p.add("main", "sleep", "1000")
	p.sandbox()
	left := cutOffStart(t, p, false)
	if err := g.rt.Remove(g.ctx, left.ID, true); err != nil {
		t.Fatal(err)
	}
	g.hangingShim(p, left.ID)
	g.reopen() // an agent that knows nothing of it
	p.remove()
	if pids := g.shims(p.UID); len(pids) > 0 {
		t.Errorf("left: shims %v", pids)
	}
}

// hangingShim starts a shim as containerd does, and does not read its log.
func (g *rig) hangingShim(p *testPod, id string) {
	g.tb.Helper()
	bundle := filepath.Join(g.opts.State, bundles, id)
	mkdirAll(g.tb, bundle)
	spec, err := json.Marshal(map[string]any{"annotations": map[string]string{groupAnnotation: g.rt.shimGroup(p.UID)}})
	if err != nil {
		g.tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), spec, 0o600); err != nil {
		g.tb.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(bundle, "log"), 0o700); err != nil {
		g.tb.Fatal(err)
	}
	start := exec.CommandContext(g.ctx, "containerd-shim-runc-v2", "-namespace", namespace, "-address", g.opts.Address, "-publish-binary", "containerd", "-id", id, "start")
	start.Dir = bundle
	start.Env = append(os.Environ(), "TTRPC_ADDRESS="+g.opts.Address+".ttrpc", "GRPC_ADDRESS="+g.opts.Address, "NAMESPACE="+namespace)
	if out, err := start.CombinedOutput(); err != nil {
		g.tb.Fatalf("start a shim: %v\n%s", err, out)
	}
	if len(g.shims(p.UID)) != 1 {
		g.tb.Fatal("there is no shim")
	}
}

func (g *rig) shims(uid types.UID) []int {
	g.tb.Helper()
	pids, err := shims(g.opts.Address, func(id string) bool { return g.rt.isOfPod(id, uid) })
	if err != nil {
		g.tb.Fatal(err)
	}
	return pids
}

// Folders that containerd could not remove go with the container, or else with
// the pod; those of other pods stay.
func TestFoldersThatContainerdLeft(t *testing.T) {
	g := newRig(t)
	p, other := g.pod("left"), g.pod("other")
	p.add("main", "true")
	p.sandbox()
	left := cutOffStart(t, p, false)
	folder := func(name string) string {
		dir := filepath.Join(g.opts.State, bundles, name)
		mkdirAll(t, filepath.Join(dir, "rootfs"))
		if err := unix.Mount("left", filepath.Join(dir, "rootfs"), "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := dropBundle(dir); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	exists := func(dir string) bool { _, err := os.Lstat(dir); return err == nil }
	own, late, foreign := folder("."+left.ID), folder("."+g.rt.newID(p.UID)), folder("."+g.rt.newID(other.UID))
	if err := g.rt.Remove(g.ctx, left.ID, true); err != nil {
		t.Fatal(err)
	}
	if exists(own) || !exists(late) || !exists(foreign) {
		t.Errorf("after the container: %t, %t, %t", exists(own), exists(late), exists(foreign))
	}
	p.remove()
	if exists(late) || !exists(foreign) {
		t.Errorf("after the pod: %t, %t", exists(late), exists(foreign))
	}
}

// Whenever a start is cut off, the next one succeeds, and nothing is left.
func TestStartCutOffAtAnyInstant(t *testing.T) {
	g := newRig(t)
	for i := range 24 {
		p := g.pod("cut")
		p.add("main", "sleep", "1000")
		p.sandbox()
		q := p.request("main", 0)
		ctx, cancel := context.WithTimeout(g.ctx, time.Duration(i)*4*time.Millisecond)
		c, err := g.rt.Start(ctx, q)
		cancel()
		t.Logf("after %d ms: %v", i*4, err)
		if err != nil {
			began := time.Now()
			c = p.start("main", 0)
			if took := time.Since(began); took > soon {
				t.Errorf("cut off after %d ms, the next start took %v", i*4, took)
			}
		}
		if c.State != pod.ContainerRunning {
			t.Errorf("cut off after %d ms: %+v", i*4, c)
		}
		p.remove()
		if pids := g.shims(p.UID); len(pids) > 0 {
			t.Errorf("cut off after %d ms, shims are left: %v", i*4, pids)
		}
	}
}

// The shim of a container that runs is not idle, although the log is lost that
// told of its start.
func TestShimOfALostLog(t *testing.T) {
	g := newRig(t)
	p := g.pod("lost")
	p.add("main", "true")
	p.add("other", "sleep", "1000")
	p.sandbox()
	other := p.start("other", 0)
	pid := g.pidOf(other.ID)
	left := cutOffStart(t, p, false)
	g.shut()
	if err := os.Remove(other.LogPath); err != nil {
		t.Fatal(err)
	}
	g.open()
	if err := g.rt.Remove(g.ctx, left.ID, true); err != nil {
		t.Fatal(err)
	}
	if now := g.pidOf(other.ID); now != pid {
		t.Errorf("process %d is now %d", pid, now)
	}
	p.remove()
}

// That a start was cut off is known also when the sandbox was made anew since.
func TestShimThatHangsInAnotherSandbox(t *testing.T) {
	g := newRig(t)
	p := g.pod("anew")
	p.add("main", "sleep", "1000")
	p.sandbox()
	left := cutOffStart(t, p, false)
	if err := g.rt.Remove(g.ctx, left.ID, true); err != nil {
		t.Fatal(err)
	}
	g.shut()
	if err := os.Remove(filepath.Join(g.rt.podDir(p.UID), "sandbox.json")); err != nil {
		t.Fatal(err)
	}
	g.open()
	p.sandbox()
	g.hangingShim(p, left.ID)
	p.remove()
	if pids := g.shims(p.UID); len(pids) > 0 {
		t.Errorf("left: shims %v", pids)
	}
}

// What has a number that a process had which was to be killed is not that process.
func TestKillOfANumberGivenAway(t *testing.T) {
	other := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ended := own(other)
	if err := killTree(other.Process.Pid, func(int) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if now, err := readProcess(other.Process.Pid); err != nil || now.dead {
		t.Errorf("it was killed: %+v, %v", now, err)
	}
	if err := killTree(other.Process.Pid, func(int) bool { return true }); err != nil {
		t.Fatal(err)
	}
	<-ended.dead
}

// A shim that was killed leaves its socket, which goes with the pod.
func TestSocketOfAKilledShim(t *testing.T) {
	g := newRig(t)
	p := g.pod("socket")
	p.add("main", "sleep", "1000")
	p.sandbox()
	c := p.start("main", 0)
	socket := g.rt.shimSocket(p.UID)
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("no socket is where it was looked for: %v", err)
	}
	signal(t, shimOf(t, g.pidOf(c.ID)), unix.SIGKILL)
	p.exit()
	p.remove()
	if _, err := os.Lstat(socket); err == nil {
		t.Error("it is left")
	}
}
