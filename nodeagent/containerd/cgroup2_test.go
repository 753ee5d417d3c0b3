package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pawl-project/pawl/nodeagent"
)

// What is read of cgroup v2, from files as kernels write them: that of a running
// container, of one that ran out of memory, of an old kernel, of one without a
// memory controller, and of a cgroup that is being removed.
func TestFilesOfCgroup2(t *testing.T) {
	h := host{cgroup: map[string]string{"": filepath.Join("testdata", "cgroup2")}, memory2: true}
	bare := h
	bare.memory2 = false
	for name, c := range map[string]struct {
		h     host
		want  nodeagent.Counter
		err   error
		kills uint64
	}{
		"running":  {h, nodeagent.Counter{CPU: 1234567000, Memory: 6 << 20}, nil, 0},
		"killed":   {h, nodeagent.Counter{CPU: 1234567000, Memory: 6 << 20}, nil, 3},
		"old":      {h, nodeagent.Counter{CPU: 77000, Memory: 4096}, nil, 1},
		"nomemory": {bare, nodeagent.Counter{CPU: 5000}, nil, 0},
		"going":    {h, nodeagent.Counter{}, errEnded, 0},
		"gone":     {h, nodeagent.Counter{}, fs.ErrNotExist, 0},
	} {
		var read cgroupReader
		got, err := c.h.counter(&read, name)
		if !errors.Is(err, c.err) || c.err == nil && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, got, err, c.want, c.err)
		}
		if kills := c.h.oomKills(name); kills != c.kills {
			t.Errorf("%s: %d kills, want %d", name, kills, c.kills)
		}
	}
}

// v1 tells of kills in another file, beside a word that begins alike.
func TestKillsOfCgroup1(t *testing.T) {
	for text, want := range map[string]uint64{
		"oom_kill_disable 1\nunder_oom 0\noom_kill 2\n": 2,
		"oom_kill_disable 1\nunder_oom 0\n":             0, // before Linux 4.13
		"oom_kill_disable 1\nunder_oom 0\noom_kill 0\n": 0,
	} {
		dir := cgroupFiles(t, map[string]string{"c/memory.oom_control": text})
		if got := (host{cgroup: map[string]string{"memory": dir}}).oomKills("/c"); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// Before Linux 5.8 the root of v2 has no cpu.stat: the machine's is in /proc.
func TestMachineWithoutCPUStat(t *testing.T) {
	if got := busy("cpu  100 20 30 4000 50 6 7 8 9 1\ncpu0 1 2 3\n"); got != (100+20+30+6+7+8)*10_000_000 {
		t.Errorf("%d ns", got)
	}
	for _, spoilt := range []string{"", "cpu", "cpu0 1 2 3 4 5 6 7 8", "intr 1 2 3 4 5 6 7 8 9"} {
		if got := busy(spoilt); got != 0 {
			t.Errorf("%q: %d ns", spoilt, got)
		}
	}
	h := host{cgroup: map[string]string{"": t.TempDir()}}
	var read cgroupReader
	if c, err := h.machine(&read); err != nil || c.CPU == 0 || c.Memory == 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestControllersOfCgroup2(t *testing.T) {
	with := cgroupFiles(t, map[string]string{"cgroup.controllers": "cpuset cpu io memory pids\n"})
	without := cgroupFiles(t, map[string]string{"cgroup.controllers": "cpuset cpu io memory_recursiveprot pids\n"})
	for root, want := range map[string]bool{with: true, without: false, t.TempDir(): false, "": false} {
		if got := hasController2(root, "memory"); got != want {
			t.Errorf("%s: %v", root, got)
		}
	}
}

// On a real v2 hierarchy a pod's cgroup is made, also where there is no
// controller to hand on, and with all below it, threaded ones too, emptied and
// removed.
func TestRealCgroup2(t *testing.T) {
	mounts, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	root := mounts[""] + mounts[unified] // one of them
	if root == "" {
		t.Fatal("no v2 hierarchy is mounted, neither alone nor beside v1's")
	}
	r := &Runtime{opts: Options{Instance: fmt.Sprintf("test%d-real2", os.Getpid())}, limits: host{cgroup: map[string]string{"": root}}}
	path := r.podCgroup("u") + "/c"
	t.Cleanup(func() {
		if err := errors.Join(r.EndAll(context.Background()), r.removeCgroup(r.instanceCgroup())); err != nil {
			t.Error(err)
		}
	})
	dir, err := r.makeCgroup2(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.makeCgroup2(path); err != nil || again != dir {
		t.Errorf("made again: %s, %v", again, err)
	}
	threaded := filepath.Join(dir, "threads")
	if err := os.Mkdir(threaded, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeCgroup(threaded, "cgroup.type", "threaded"); err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	if err := writeCgroup(dir, "cgroup.procs", fmt.Sprint(sleep.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if err := writeCgroup(threaded, "cgroup.threads", fmt.Sprint(sleep.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if there, err := r.anyIn(r.instanceCgroup()); err != nil || !there {
		t.Errorf("a process is there: %v, %v", there, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleep.Wait() }()
	if err := r.EndAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the process was not killed")
	}
}
