package containerd

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// shared is a pod whose containers share their processes.
func (g *rig) shared(name string, containers ...string) *testPod {
	p := g.pod(name)
	p.Spec.ShareProcessNamespace = ptr.To(true)
	for _, c := range containers {
		p.add(c, "sh", "-c", "exec sleep 1000")
	}
	return p
}

// in runs a command in a container and returns what it said.
func (p *testPod) in(id, command string) string {
	p.tb.Helper()
	_, out, err := p.rt.Exec(p.ctx, id, []string{"sh", "-c", command})
	if err != nil {
		p.tb.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

func (p *testPod) running(name string) bool {
	for _, c := range p.look().Containers {
		if c.Name == name && c.State == pod.ContainerRunning {
			return true
		}
	}
	return false
}

func TestSharedProcesses(t *testing.T) {
	g := newRig(t)
	p := g.shared("shared", "one", "two")
	p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_PTRACE"}}}
	p.Spec.Containers[1].Command = []string{"sh", "-c", "trap 'echo hup >>/mark' HUP; echo mine >/mark; while :; do sleep 0.1; done"}
	p.sandbox()
	one, two := p.start("one", 0), p.start("two", 0)
	pollEach(t, 50*time.Millisecond, "the other container has its trap", func() bool {
		return strings.Contains(p.in(two.ID, "cat /mark 2>/dev/null || true"), "mine")
	})

	ps := p.in(one.ID, "ps -o pid,user,args")
	if !strings.Contains(ps, "/pause") || !strings.Contains(ps, "sleep 1000") || !strings.Contains(ps, "trap") {
		t.Errorf("ps in one container:\n%s", ps)
	}
	if got := p.in(one.ID, "tr '\\0' ' ' </proc/1/cmdline"); got != "/pause " {
		t.Errorf("process 1 is %q", got)
	}
	// A signal and a look across, as Kubernetes' page on this has it.
	other := ""
	for line := range strings.Lines(ps) {
		if strings.Contains(line, "echo mine") {
			other = strings.Fields(line)[0]
		}
	}
	if said := p.in(one.ID, "kill -HUP "+other); said != "" {
		t.Errorf("kill -HUP: %s\n%s", said, ps)
	}
	pollEach(t, 50*time.Millisecond, "the other container's process heard the signal", func() bool {
		return strings.Contains(p.in(two.ID, "cat /mark"), "hup")
	})
	if got := p.in(one.ID, "cat /proc/"+other+"/root/mark"); !strings.Contains(got, "mine") {
		t.Errorf("the other container's files, with SYS_PTRACE: %q", got)
	}
	// Process 1 can neither be killed nor does it lead anywhere.
	p.in(one.ID, "kill -9 1; kill -TERM 1")
	if got := p.in(one.ID, "ls -A /proc/1/root/ 2>/dev/null"); got != "" && got != "pause\n" {
		t.Errorf("process 1 shows the files %q", got)
	}
	// It reaps what it is left with.
	p.in(two.ID, "(for i in 1 2 3 4 5; do sleep 0.01 & done) & exit 0")
	pollEach(t, 50*time.Millisecond, "no process is left unreaped", func() bool {
		return !strings.Contains(p.in(one.ID, "grep -h State /proc/[0-9]*/status"), "Z (zombie)")
	})
	p.remove()
}

// One container ends and starts again; the other does not notice, nor does
// either when the agent is killed.
func TestSharedProcessesOneRestarts(t *testing.T) {
	g := newRig(t)
	p := g.shared("restarts", "one", "two")
	p.Spec.Containers[1].Command = []string{"sh", "-c", "sleep 500 & sleep 1000"}
	p.sandbox()
	one, two := p.start("one", 0), p.start("two", 0)
	g.reopen()
	if !p.look().Sandbox.Ready {
		t.Fatal("the next agent does not know the sandbox")
	}
	for _, signal := range []string{"KILL", ""} {
		if signal == "" {
			two = p.start("two", 1)
		}
		if err := g.rt.Signal(g.ctx, two.ID, "KILL", time.Now()); err != nil {
			t.Fatal(err)
		}
		p.await("two has ended", func(pod.Seen) bool { return !p.running("two") })
		pollEach(t, 50*time.Millisecond, "what it had started has ended too", func() bool {
			return !strings.Contains(p.in(one.ID, "ps -o args"), "sleep 500")
		})
		if !p.running("one") {
			t.Fatal("the other container ended too")
		}
	}
	p.start("two", 2)
	if got := p.in(one.ID, "ps -o args"); !strings.Contains(got, "sleep 500") {
		t.Errorf("the new container is not in the namespace:\n%s", got)
	}
	p.remove()
}

// When somebody kills process 1, the pod's containers end, and its sandbox is
// made anew.
func TestSharedProcessesLost(t *testing.T) {
	g := newRig(t)
	p := g.shared("lost", "one")
	p.sandbox()
	p.start("one", 0)
	pids, err := g.rt.pauses(p.UID)
	if err != nil || len(pids) != 1 {
		t.Fatalf("process 1: %v, %v", pids, err)
	}
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.await("the sandbox is lost", func(s pod.Seen) bool { return !s.Sandbox.Ready && s.Containers[0].State == pod.ContainerExited })
	p.sandbox()
	one := p.start("one", 1)
	if got := p.in(one.ID, "ps -o args"); !strings.Contains(got, "/pause") {
		t.Errorf("after the sandbox was made anew:\n%s", got)
	}
	p.remove()
}

// What is there of a shared pod goes with it, wherever the agent was killed.
func TestSharedProcessesLeaveNothing(t *testing.T) {
	g := newRig(t)
	steady := g.pod("steady")
	steady.add("main", "sleep", "1000")
	steady.sandbox()
	steady.start("main", 0)
	round := func(name string) {
		p := g.shared(name, "one", "two")
		p.sandbox()
		p.start("one", 0)
		p.start("two", 0)
		p.remove()
	}
	round("first")
	before, ours := g.counts(), countPauses(t)
	for i := range 20 {
		round(fmt.Sprint("round", i))
	}
	cut := g.shared("cut", "one") // a sandbox of which only the record is missing
	cut.sandbox()
	if err := os.Remove(filepath.Join(g.rt.podDir(cut.UID), "sandbox.json")); err != nil {
		t.Fatal(err)
	}
	g.reopen()
	if _, err := g.rt.Seen(g.ctx); err != nil {
		t.Fatal(err)
	}
	pollEach(t, 100*time.Millisecond, "as many of everything as before", func() bool {
		after := g.counts()
		for _, what := range []string{"containers", "snapshots", "shims", "mounts", "run files", "data files", "cgroups", "addresses"} {
			if after[what] != before[what] {
				t.Logf("%s: %d, before %d", what, after[what], before[what])
				return false
			}
		}
		return countPauses(t) == ours
	})
}

// countPauses counts the processes of this kind on the machine, zombies too.
func countPauses(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		stat, err := os.ReadFile(f)
		if fields := strings.Fields(string(stat)); err == nil && len(fields) > 3 && fields[1] == "(pause)" && fields[3] == fmt.Sprint(os.Getpid()) {
			n++
		}
	}
	return n
}

// A process 1 whose maker dies before it is in its cgroup, where it would be
// found, ends by itself. What it costs is told.
func TestPauseEndsWithItsMaker(t *testing.T) {
	for _, c := range pauseCode {
		f, err := elf.NewFile(bytes.NewReader(executable(c.machine, c.text)))
		if err != nil || len(f.Progs) != 1 || f.Progs[0].Filesz != uint64(120+len(c.text)) {
			t.Errorf("machine %d: %v", c.machine, err)
		}
	}
	p, err := preparePause(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pid, err := p.start(func(wait int) (int, error) { return pauseOnThread(p.program, p.root, nil, wait) })
	if err != nil {
		t.Fatal(err)
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range strings.Lines(string(status)) {
			for _, key := range []string{"VmRSS", "RssAnon", "Uid", "CapEff", "CapPrm", "NoNewPrivs", "NSpid"} {
				if strings.HasPrefix(line, key+":") {
					t.Log(strings.TrimSpace(line))
				}
			}
		}
	}
	pss, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	t.Logf("%d bytes of program; %s", len(p.program), pss)
	p.close()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	pollEach(t, 10*time.Millisecond, "it ends", func() bool { return ended(fd) })
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 1 {
		t.Errorf("ended with %v, %v", status, err)
	}
}
