package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
)

// limited gives a container limits of cpu and memory.
func limited(c *corev1.Container, cpu, memory string) {
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// TestPodCgroupIsWritten: the kernel has what podResources says, and a pod whose
// containers share it out stays below it.
func TestPodCgroupIsWritten(t *testing.T) {
	g := newRig(t)
	g.rt.opts.PodPids = 64
	p := g.pod("pair")
	limited(p.add("one", "sh", "-c", "while :; do :; done"), "100m", "16Mi")
	limited(p.add("two", "sh", "-c", "while :; do :; done"), "100m", "16Mi")
	p.sandbox()
	one := p.start("one", 0)
	p.start("two", 0)
	res := podResources(p.Pod, 64)
	settings, dir := res.settings1(), func(c string) string { return filepath.Join(g.rt.limits.cgroup[c], g.rt.podCgroup(p.UID)) }
	if g.rt.limits.v2() {
		settings, dir = res.settings2(), func(string) string { return filepath.Join(g.rt.limits.cgroup[""], g.rt.podCgroup(p.UID)) }
	}
	if len(settings) < 4 {
		t.Fatalf("settings %+v", settings)
	}
	for _, s := range settings {
		text, err := os.ReadFile(filepath.Join(dir(s.controller), s.file))
		if got := strings.TrimSpace(string(text)); err != nil || got != s.value {
			t.Errorf("%s is %q, want %q: %v", s.file, got, s.value, err)
		}
	}
	began := time.Now()
	before := g.meter(one.ID)
	time.Sleep(2 * time.Second) // CPU time is what is measured
	after := g.meter(one.ID)
	if used, in := time.Duration(after.CPU-before.CPU), time.Since(began); used > in*7/40 || used < time.Millisecond {
		t.Errorf("a container held at a tenth of a core took %s in %s", used, in)
	}
	if after.Memory == 0 || after.Memory > 16<<20 {
		t.Errorf("it has %d bytes", after.Memory)
	}
	p.remove()
	if c, err := g.rt.Meter(g.ctx); err != nil || len(c.Containers) != 0 || c.Machine.CPU == 0 {
		t.Errorf("after it is removed: %+v, %v", c, err)
	}
}

// meter reads the counters of one container.
func (g *rig) meter(id string) nodeagent.Counter {
	g.tb.Helper()
	all, err := g.rt.Meter(g.ctx)
	if err != nil {
		g.tb.Fatal(err)
	}
	for _, c := range all.Containers {
		if c.ID == id {
			return c.Counter
		}
	}
	g.tb.Fatalf("container %s is not among %+v", id, all.Containers)
	return nodeagent.Counter{}
}

// TestPidLimit: all of a pod's containers together get no more processes.
func TestPidLimit(t *testing.T) {
	g := newRig(t)
	g.rt.opts.PodPids = 16
	p := g.pod("bomb")
	p.add("main", "sh", "-c", "i=0; while [ $i -lt 40 ]; do sleep 30 & i=$((i+1)); done; echo all of them")
	end, out := p.run()
	if end.ExitCode == 0 || strings.Contains(out, "all of them") || !strings.Contains(out, "can't fork") {
		t.Errorf("exit code %d, output %q", end.ExitCode, out)
	}
}

// TestChildOutOfMemory: the kernel kills a child for want of memory, and the
// container fails for it.
func TestChildOutOfMemory(t *testing.T) {
	g := newRig(t)
	p := g.pod("parent")
	limited(p.add("main", "sh", "-c", "sh -c 'x=x; while :; do x=$x$x; done'; exit 3"), "1", "16Mi")
	// On v2 all are killed together, as in Kubernetes.
	if end, _ := p.run(); !end.OOMKilled || end.ExitCode != 3 && !g.rt.limits.v2() {
		t.Errorf("seen %+v", end)
	}
}

// TestPlaces: what a container writes lies where it is looked for.
func TestPlaces(t *testing.T) {
	g := newRig(t)
	p := g.pod("writer")
	p.add("main", "sh", "-c", "dd if=/dev/zero of=/x bs=1M count=3 2>/dev/null; echo done")
	p.run()
	for range 2 { // the second time from memory
		places, err := g.rt.Places(g.ctx)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, x := range places {
			if x.UID != p.UID || x.Container != "main" || x.Volume != "" {
				t.Errorf("place %+v", x)
			}
			if info, err := os.Stat(filepath.Join(x.Path, "x")); err == nil && info.Size() == 3<<20 {
				found = true
			}
		}
		if len(places) != 3 || !found {
			t.Errorf("places %+v", places)
		}
	}
	p.remove()
	if places, err := g.rt.Places(g.ctx); err != nil || len(places) != 0 || len(g.rt.layers.upper) != 0 {
		t.Errorf("after it is removed: %+v, %v", places, err)
	}
}

// BenchmarkMeter reads the counters of 110 containers.
func BenchmarkMeter(b *testing.B) {
	g := newRig(b)
	var paths []string
	for i := range 110 {
		uid := types.UID(fmt.Sprintf("bench-%d-%d", os.Getpid(), i))
		b.Cleanup(func() {
			if err := g.rt.removeCgroup(g.rt.podCgroup(uid)); err != nil {
				b.Error(err)
			}
		})
		path := g.rt.containerCgroup(uid, "main")
		for _, mount := range []string{g.rt.limits.cgroup["cpuacct"], g.rt.limits.cgroup["memory"], g.rt.limits.cgroup[""]} {
			if mount == "" {
				continue
			}
			if err := os.MkdirAll(filepath.Join(mount, path), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		paths = append(paths, path)
	}
	var read cgroupReader
	for b.Loop() {
		for _, path := range paths {
			if _, err := g.rt.limits.counter(&read, path); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(100*b.Elapsed().Seconds()/float64(b.N)/15, "%core/15s")
}
