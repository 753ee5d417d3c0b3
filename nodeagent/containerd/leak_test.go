package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// countShims counts the shims that serve pods of the rig's daemon.
func countShims(tb testing.TB, g *rig) int {
	tb.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(line), "containerd-shim-runc-v2") && strings.Contains(string(line), g.opts.Address) {
			n++
		}
	}
	return n
}

// counts counts everything that pods are made of.
func (g *rig) counts() map[string]int {
	g.tb.Helper()
	must := func(err error) {
		g.tb.Helper()
		if err != nil {
			g.tb.Fatal(err)
		}
	}
	ctx := namespaces.WithNamespace(g.ctx, namespace)
	n := map[string]int{"shims": countShims(g.tb, g), "goroutines": runtime.NumGoroutine()}
	list, err := g.rt.client.ContainerService().List(ctx)
	must(err)
	n["containers"] = len(list)
	must(g.rt.client.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, _ snapshots.Info) error { n["snapshots"]++; return nil }))
	held, err := g.rt.client.LeasesService().List(ctx)
	must(err)
	n["leases"] = len(held)
	tasks, err := os.ReadDir(filepath.Join(filepath.Dir(g.opts.Address), "state", "io.containerd.runtime.v2.task", namespace))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.tb.Fatal(err)
	}
	n["bundles"] = len(tasks)
	mounts, err := mountsBelow(testDir)
	must(err)
	n["mounts"] = len(mounts)
	for what, dir := range map[string]string{"run files": g.opts.RunDir, "data files": g.opts.DataDir} {
		must(filepath.WalkDir(dir, func(string, fs.DirEntry, error) error { n[what]++; return nil }))
	}
	for _, mount := range g.rt.limits.cgroup {
		must(filepath.WalkDir(filepath.Join(mount, g.rt.instanceCgroup()), func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				n["cgroups"]++
			}
			return nil
		}))
	}
	fds, err := os.ReadDir("/proc/self/fd")
	must(err)
	n["descriptors"] = len(fds)
	threads, err := os.ReadDir("/proc/self/task")
	must(err)
	n["threads"] = len(threads)
	n["addresses"] = len(g.network.held)
	g.rt.mu.Lock()
	defer g.rt.mu.Unlock()
	n["memory"] = len(g.rt.records) + len(g.rt.pods) + len(g.rt.logs) + len(g.rt.ids)
	g.rt.locks.mu.Lock()
	defer g.rt.locks.mu.Unlock()
	n["locks"] = len(g.rt.locks.locks)
	return n
}

// TestNothingIsLeft makes and removes pods of every kind and counts what is there
// before and after.
func TestNothingIsLeft(t *testing.T) {
	g := newRig(t)
	steady := g.pod("steady")
	steady.add("main", "sleep", "1000")
	steady.sandbox()
	steady.start("main", 0)
	g.round(t, 0)
	g.round(t, 1)
	before := g.counts()
	for i := range 12 {
		g.round(t, i+2)
	}
	var after map[string]int
	why := ""
	defer func() { t.Log(why) }()
	slack := map[string]int{"goroutines": 3, "descriptors": 3, "threads": 6}
	pollEach(t, 300*time.Millisecond, "as many of everything as before", func() bool {
		after = g.counts()
		for what, n := range before {
			if d := after[what] - n; d > slack[what] || d < 0 && slack[what] == 0 {
				why = fmt.Sprintf("%s: %d, before %d", what, after[what], n)
				return false
			}
		}
		return true
	})
	t.Logf("before %v, after %v", before, after)
}

// round makes and removes, side by side, pods that end in all the ways there are.
func (g *rig) round(t *testing.T, i int) {
	var wg sync.WaitGroup
	for j, c := range []struct {
		command string
		change  func(p *testPod)
	}{
		{"sleep 1000", nil},
		{"exit 3", nil},
		{"kill -9 $$", nil},
		{"echo x; sleep 1000", func(p *testPod) { p.add("second", "sleep", "1000") }},
		{"", func(p *testPod) { p.Spec.Containers[0].Command = []string{"/nope"} }},
		{"sleep 1000", func(p *testPod) { p.Spec.HostNetwork = true }},
		{"sleep 1000", func(p *testPod) {
			p.Spec.Containers[0].Image = "stopper:1"
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr.To(true)}
		}},
	} {
		wg.Go(func() {
			p := g.pod(fmt.Sprintf("round%d-%d", i, j))
			p.add("main", "sh", "-c", c.command)
			if c.change != nil {
				c.change(p)
			}
			p.sandbox()
			for _, spec := range p.Spec.Containers {
				p.start(spec.Name, 0)
			}
			p.remove()
		})
	}
	wg.Wait()
}

// A Runtime that was cut off anywhere in making a pod is followed by one that
// sees nothing half made, makes the pod, and leaves nothing.
func TestCutOffAnywhere(t *testing.T) {
	g := newRig(t)
	g.image("busybox:1.37")
	g.round(t, 0)
	before := g.counts()
	for name, cut := range map[string]func(p *testPod){
		"empty directory": func(p *testPod) { mkdirAll(t, filepath.Join(g.rt.podDir(p.UID), "io")) },
		"namespaces alone": func(p *testPod) {
			mkdirAll(t, g.rt.podDir(p.UID))
			if err := pinNamespaces(g.rt.podDir(p.UID), []nsKind{nsNet, nsIPC, nsUTS}, "x"); err != nil {
				t.Fatal(err)
			}
		},
		"sandbox without its record": func(p *testPod) {
			p.sandbox()
			if err := os.Remove(filepath.Join(g.rt.podDir(p.UID), "sandbox.json")); err != nil {
				t.Fatal(err)
			}
		},
		"spoilt record": func(p *testPod) {
			p.sandbox()
			if err := os.WriteFile(filepath.Join(g.rt.podDir(p.UID), "sandbox.json"), []byte("{"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"namespaces lost": func(p *testPod) {
			p.sandbox()
			if err := unpinNamespaces(g.rt.podDir(p.UID)); err != nil {
				t.Fatal(err)
			}
		},
		"container without task":   func(p *testPod) { p.sandbox(); cutOffStart(t, p, false) },
		"task that is not started": func(p *testPod) { p.sandbox(); cutOffStart(t, p, true) },
	} {
		for _, hostUsers := range []bool{true, false} {
			t.Run(fmt.Sprint(strings.ReplaceAll(name, " ", "_"), "/hostUsers=", hostUsers), func(t *testing.T) {
				p := g.pod("cut")
				p.Spec.HostUsers = &hostUsers
				p.add("main", "sh", "-c", "exit 3")
				cut(p)
				g.reopen()
				all, err := g.rt.Seen(g.ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range all {
					for _, c := range s.Containers {
						if c.State != pod.ContainerCreated {
							t.Errorf("seen %+v", c)
						}
					}
				}
				if c, _ := p.run(); c.ExitCode != 3 {
					t.Errorf("seen %+v", c)
				}
				p.remove()
			})
		}
	}
	pollEach(t, 300*time.Millisecond, "as many of everything as before", func() bool {
		after := g.counts()
		for _, what := range []string{"containers", "snapshots", "shims", "bundles", "mounts", "run files", "data files", "cgroups", "addresses", "leases"} {
			if after[what] != before[what] {
				t.Logf("%s: %d, before %d", what, after[what], before[what])
				return false
			}
		}
		return true
	})
}

func mkdirAll(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
}

// cutOffStart does what a start does before its process runs.
func cutOffStart(t *testing.T, p *testPod, withTask bool) *record {
	t.Helper()
	q := p.request("main", 0)
	sandbox, err := p.rt.sandbox(p.UID)
	if err != nil {
		t.Fatal(err)
	}
	image, err := p.rt.images.find(p.ctx, q.Image.Ref)
	if err != nil {
		t.Fatal(err)
	}
	rec, mounts, err := p.rt.create(p.ctx, q, image, sandbox)
	if err != nil {
		t.Fatal(err)
	}
	if !withTask {
		return rec
	}
	l, err := p.rt.openLog(rec)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.rt.createTask(p.ctx, rec, mounts); err != nil {
		t.Fatal(err)
	}
	l.cut()
	l.writer.close()
	return rec
}
