package containerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

func signal(tb testing.TB, pid int, s syscall.Signal) {
	tb.Helper()
	// What is killed with another, as a container's process with its shim, may have
	// gone first.
	if err := syscall.Kill(pid, s); err != nil && (s != syscall.SIGKILL || !errors.Is(err, syscall.ESRCH)) {
		tb.Fatal(err)
	}
}

// paused stops a process until the function returned is called, or the test ends.
func paused(t *testing.T, pid int) (goOn func()) {
	t.Helper()
	signal(t, pid, syscall.SIGSTOP)
	on := func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	}
	t.Cleanup(on)
	return on
}

func execProbe(command ...string) *corev1.Probe {
	return &corev1.Probe{
		PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 2,
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}},
	}
}

// A pod whose shim is stopped cannot be asked or removed. The others go
// on, one can see what is wrong, and it goes on when the shim does.
func TestStoppedShimHoldsUpNoOther(t *testing.T) {
	t.Parallel() // it mostly waits
	a := newAgentRig(t, newRig(t))
	a.begin(true)
	stuck, doomed, other := a.sleeper("stuck"), a.sleeper("doomed"), a.sleeper("other")
	a.run(stuck, doomed, other)
	before := a.pids(other)
	goOn := paused(t, shimOf(t, a.pidOf(a.only(stuck).ID)))
	a.delete(1, stuck)
	began := time.Now()
	fresh := a.sleeper("fresh")
	a.run(fresh)
	a.remove(doomed)
	t.Logf("beside it a pod came and a pod went in %s", time.Since(began).Round(time.Millisecond))
	eventually(t, "it is said that the pod cannot be removed", func() bool { return a.ctl.said(stuck, "FailedKillPod", "") })
	if a.ctl.isGone(stuck) {
		t.Error("the pod is called gone while its shim stands still")
	}
	a.remove(fresh)
	goOn()
	a.awaitGone(stuck)
	if now := a.pids(other); now != before {
		t.Errorf("the other pod: %s, before: %s", now, before)
	}
}

// The pod of a shim that is killed is started again, and no other.
func TestDeadShimHoldsUpNoOther(t *testing.T) {
	a := newAgentRig(t, newRig(t))
	a.begin(true)
	victim, other := a.sleeper("victim"), a.sleeper("other")
	a.run(victim, other)
	before := a.pids(other)
	signal(t, shimOf(t, a.pidOf(a.only(victim).ID)), syscall.SIGKILL)
	eventually(t, "it runs again", func() bool {
		s := a.ctl.of(victim).ContainerStatuses
		return len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Running != nil
	})
	if last := a.ctl.of(victim).ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 137 {
		t.Errorf("its last end is told as %+v", last)
	}
	if now := a.pids(other); now != before {
		t.Errorf("the other pod: %s, before: %s", now, before)
	}
}

// While containerd stands still its node says so, and nothing is touched; what
// was ordered meanwhile is done when it goes on.
func TestPausedContainerd(t *testing.T) {
	t.Parallel() // it mostly waits
	d := ownDaemon(t)
	a := newAgentRig(t, rigOn(t, d))
	a.begin(true)
	steady, doomed := a.sleeper("steady"), a.sleeper("doomed")
	a.run(steady, doomed)
	before := a.pids(steady)
	goOn := paused(t, d.running().pid)
	eventually(t, "the node is not ready", func() bool {
		c := a.ctl.condition(corev1.NodeReady)
		return c.Status == corev1.ConditionFalse && c.Reason == "RuntimeNotReady" && c.Message != ""
	})
	fresh := a.sleeper("fresh")
	a.assign(fresh)
	a.delete(1, doomed)
	eventually(t, "the new pod is told of, and why it does not start", func() bool {
		s := a.ctl.of(fresh)
		return s.Phase == corev1.PodPending && len(s.ContainerStatuses) == 1 && s.ContainerStatuses[0].State.Waiting != nil &&
			strings.Contains(s.ContainerStatuses[0].State.Waiting.Message, "look up the image")
	})
	goOn()
	began := time.Now()
	a.awaitRunning(fresh)
	a.awaitGone(doomed)
	t.Logf("all done %s after it went on", time.Since(began).Round(time.Millisecond))
	eventually(t, "the node is ready", func() bool { return a.ctl.condition(corev1.NodeReady).Status == corev1.ConditionTrue })
	if now := a.pids(steady); now != before {
		t.Errorf("the steady pod: %s, before: %s", now, before)
	}
}

// A probe whose command hangs counts as failed, and holds up nobody.
func TestHungExecProbe(t *testing.T) {
	t.Parallel() // it mostly waits
	a := newAgentRig(t, newRig(t))
	a.begin(true)
	hung := a.sleeper("hung", func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = execProbe("sleep", "1000") })
	other := a.sleeper("other", func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = execProbe("true")
		p.Spec.Containers[0].ReadinessProbe.TimeoutSeconds = 20
	})
	a.run(hung, other)
	eventually(t, "it is said", func() bool { return a.ctl.said(hung, "Unhealthy", "Liveness probe failed") })
	eventually(t, "it is started again", func() bool { return a.ctl.of(hung).ContainerStatuses[0].RestartCount == 1 })
	eventually(t, "the other pod is ready", func() bool { return a.ctl.of(other).ContainerStatuses[0].Ready })
	began := time.Now()
	a.remove(hung)
	t.Logf("removed in %s", time.Since(began).Round(time.Millisecond))
}

// A restart of the agent adopts what runs, and makes nobody start sooner who
// crashes.
func TestRestartBackOffOutlivesTheAgent(t *testing.T) {
	t.Parallel() // it mostly waits
	a := newAgentRig(t, newRig(t))
	a.begin(true)
	steady := a.sleeper("steady")
	crashing := a.sleeper("crashing", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sh", "-c", "exit 3"} })
	a.run(steady)
	before := a.pids(steady)
	a.assign(crashing)
	ended := a.awaitAttempt(crashing, 1, pod.ContainerExited)
	for range 4 {
		a.restart()
		time.Sleep(time.Second)
		if c := a.newest(crashing); c.Attempt != 1 && c.CreatedAt.Sub(ended.FinishedAt) < 10*time.Second {
			t.Fatalf("started again after %s", c.CreatedAt.Sub(ended.FinishedAt))
		}
	}
	eventually(t, "its back-off is told", func() bool {
		s := a.ctl.of(crashing).ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == pod.ReasonCrashLoop
	})
	again := a.awaitAttempt(crashing, 2, pod.ContainerExited)
	if pause := again.CreatedAt.Sub(ended.FinishedAt); pause < 10*time.Second {
		t.Errorf("started again after %s, want 10 s", pause)
	}
	if again.Backoff != ended.Backoff+1 {
		t.Errorf("its back-off is %d after %d", again.Backoff, ended.Backoff)
	}
	if now := a.pids(steady); now != before {
		t.Errorf("the steady pod: %s, before: %s", now, before)
	}
}

func (a *agentRig) newest(p *corev1.Pod) (newest pod.Container) {
	a.tb.Helper()
	s, err := a.rt.SeenPod(a.ctx, p.UID)
	if err != nil {
		a.tb.Fatal(err)
	}
	for _, c := range s.Containers {
		if c.Attempt >= newest.Attempt {
			newest = c
		}
	}
	return newest
}

func (a *agentRig) awaitAttempt(p *corev1.Pod, attempt int, state pod.ContainerState) (c pod.Container) {
	a.tb.Helper()
	eventually(a.tb, fmt.Sprintf("attempt %d of %s", attempt, p.Name), func() bool {
		c = a.newest(p)
		return c.Attempt == attempt && c.State == state
	})
	return c
}

// After a reboot, which leaves of the run directories, mounts, namespaces and
// processes nothing, the agent starts what it was assigned with no control plane.
func TestRebootWithoutControlPlane(t *testing.T) {
	d := ownDaemon(t)
	a := newAgentRig(t, rigOn(t, d))
	a.begin(true)
	settings := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}, Data: map[string]string{"key": "value"}}
	a.ctl.assigned.ConfigMaps = []corev1.ConfigMap{settings}
	a.ctl.handler.Whole(a.ctl.assigned)
	pods := []*corev1.Pod{a.sleeper("one"), a.sleeper("two", withVolumes)}
	a.run(pods...)
	a.reboot(t, d)
	a.begin(false)
	for _, p := range pods {
		c := a.awaitAttempt(p, 1, pod.ContainerRunning)
		if p.Name != "two" {
			continue
		}
		code, out, err := a.rt.Exec(a.ctx, c.ID, []string{"sh", "-c", "cat /settings/key && touch /memory/x /disk/x /dev/shm/x && hostname"})
		if err != nil || code != 0 || string(out) != "valuetwo\n" {
			t.Errorf("inside: %d, %q, %v", code, out, err)
		}
	}
}

func withVolumes(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{
		{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
		{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "disk", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	for _, v := range p.Spec.Volumes {
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}
}

// reboot leaves what the machine's disk keeps, and containerd running anew.
func (a *agentRig) reboot(t *testing.T, d *Daemon) {
	t.Helper()
	a.end()
	a.shut()
	if err := d.running().end(a.ctx, 0); err != nil {
		t.Fatal(err)
	}
	for _, pid := range a.processes() {
		signal(t, pid, syscall.SIGKILL)
	}
	eventually(t, "the processes end", func() bool { return len(a.processes()) == 0 })
	for _, run := range []string{a.opts.RunDir, d.opts.RunDir} {
		eventually(t, "nothing is in use any more", func() bool { return clearTestDir(run) == nil })
	}
	if err := d.Start(a.ctx); err != nil {
		t.Fatal(err)
	}
	a.open()
}

// processes are the instance's containers and their shims.
func (a *agentRig) processes() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		a.tb.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err1 := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		groups, err2 := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup"))
		if err1 != nil || err2 != nil || len(line) == 0 {
			continue // it ended
		}
		if isShimOf(strings.Split(string(line), "\x00"), a.opts.Address) || strings.Contains(string(groups), a.rt.instanceCgroup()+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A disk without room, or without inodes, keeps new pods waiting; they say for
// what, the node does too, and when there is room they start by themselves.
func TestFullDisk(t *testing.T) {
	t.Parallel() // it mostly waits
	for name, options := range map[string]string{"MiB": "size=2m", "inodes": "size=2m,nr_inodes=200"} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			disk := mountTmpfs(t, filepath.Join(g.opts.DataDir, "agent"), options)
			a := newAgentRig(t, g)
			a.begin(true)
			steady := a.sleeper("steady")
			a.run(steady)
			before := a.pids(steady)
			free := fillUp(t, disk, name == "inodes")
			fresh := a.sleeper("fresh")
			a.assign(fresh)
			eventually(t, "the pod says what it waits for", func() bool {
				s := a.ctl.of(fresh).ContainerStatuses
				return len(s) == 1 && s[0].State.Waiting != nil && strings.Contains(s[0].State.Waiting.Message, "no space left on device")
			})
			eventually(t, "an event does", func() bool { return a.ctl.said(fresh, "FailedRecord", "no space left on device") })
			eventually(t, "the node does", func() bool {
				c := a.ctl.condition(corev1.NodeDiskPressure)
				return c.Status == corev1.ConditionTrue && strings.Contains(c.Message, name)
			})
			a.end() // nor does an agent give up that starts now
			a.ctl.forget()
			a.reopen()
			a.begin(true)
			eventually(t, "the next agent says so too", func() bool {
				return a.ctl.said(fresh, "FailedRecord", "no space left on device") && a.ctl.condition(corev1.NodeDiskPressure).Status == corev1.ConditionTrue
			})
			free()
			a.awaitRunning(fresh)
			eventually(t, "the node has room", func() bool {
				return strings.Contains(a.ctl.condition(corev1.NodeDiskPressure).Message, "there must be room for")
			})
			if now := a.pids(steady); now != before {
				t.Errorf("the steady pod: %s, before: %s", now, before)
			}
		})
	}
}

// mountTmpfs mounts a small file system until the end of the test.
func mountTmpfs(t *testing.T, dir, options string) string {
	t.Helper()
	mkdirAll(t, dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp leaves no room, and returns how to make it again.
func fillUp(t *testing.T, dir string, inodes bool) (free func()) {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	mkdirAll(t, filler)
	for i := 0; ; i++ {
		size := 4096
		if inodes {
			size = 0
		}
		err := os.WriteFile(filepath.Join(filler, strconv.Itoa(i)), make([]byte, size), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.RemoveAll(filler); err != nil {
			t.Error(err)
		}
	}
}
