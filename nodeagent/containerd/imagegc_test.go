package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// smallDisk is a daemon whose images lie on a disk of that many MiB.
func smallDisk(t *testing.T, size int) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp(testDir, "")
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "d")
	mkdirAll(t, disk)
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		t.Fatal(err)
	}
	d := NewDaemon(DaemonOptions{DataDir: disk, RunDir: filepath.Join(dir, "r")})
	t.Cleanup(func() {
		if err := errors.Join(d.Stop(context.Background()), unix.Unmount(disk, unix.MNT_DETACH)); err != nil {
			t.Error(err)
		}
	})
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// names lists the images there are.
func (g *rig) names(t *testing.T) (all []string) {
	t.Helper()
	list, err := g.rt.client.ImageService().List(namespaces.WithNamespace(g.ctx, namespace))
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		all = append(all, img.Name)
	}
	slices.Sort(all)
	return all
}

// relabel changes an image's record as time or others would.
func (g *rig) relabel(t *testing.T, image string, labels map[string]string) {
	t.Helper()
	if err := g.rt.images.labelImage(namespaces.WithNamespace(g.ctx, namespace), image, labels); err != nil {
		t.Fatal(err)
	}
}

func (g *rig) collect(t *testing.T, keep ...string) nodeagent.ImageCollection {
	t.Helper()
	c, err := g.rt.CollectImages(g.ctx, keep)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A disk that fills up with images is emptied of those that nobody uses, the
// longest unused first, as far as is needed; and those that must stay stay.
func TestCollectImages(t *testing.T) {
	d := smallDisk(t, 160)
	g, reg := newRig(t), newWatchedRegistry(t)
	g.shut()
	g.opts.Address, g.opts.State = d.Address(), d.State()
	g.opts.ImageGCHigh, g.opts.ImageGCLow = 60, 40
	g.open()
	g.rt.gc.minAge = 0
	image := func(name string) string { return reg.host() + "/" + name + ":1" }
	pull := func(name string) {
		t.Helper()
		img, err := random.Image(6<<20, 1)
		if err == nil {
			err = push(reg.URL, name+":1", img)
		}
		if err == nil {
			_, err = g.pull(image(name), corev1.PullAlways)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p := g.pod("user")
	p.add("main", "sleep", "1000")
	p.sandbox()
	p.start("main", 0)
	for _, name := range []string{"a", "b"} {
		pull(name)
	}
	if c := g.collect(t); c.Wanted != 0 || len(c.Removed) > 0 || c.Full() || c.Capacity == 0 {
		t.Errorf("with room there is nothing to do: %+v", c)
	}
	for _, name := range []string{"others", "hand", "kept", "unknown", "c", "d", "e", "f"} {
		pull(name)
	}
	hours := func(n int) string { return stamp(time.Now().Add(-time.Duration(n) * time.Hour)) }
	mine := labelUsedBy + g.opts.Instance
	for i, name := range []string{"hand", "others", "kept", "e", "a", "d", "b", "c", "f"} {
		g.relabel(t, image(name), map[string]string{mine: hours(40 - i)})
	}
	g.relabel(t, image("hand"), map[string]string{labelImported: stamp(time.Now().Add(-50 * time.Minute))})
	g.relabel(t, image("others"), map[string]string{labelUsedBy + "another": hours(3)})
	ctx := namespaces.WithNamespace(g.ctx, namespace)
	if _, err := g.rt.client.ImageService().Update(ctx, images.Image{Name: image("unknown"), Labels: map[string]string{}}, "labels"); err != nil {
		t.Fatal(err)
	}
	clear(g.rt.gc.used)
	c := g.collect(t, image("kept"))
	t.Logf("%+v: %v used of %v", c, c.Used, c.Capacity)
	if want := []string{image("e"), image("a"), image("d"), image("b")}; len(c.Removed) < 2 || len(c.Removed) > 5 ||
		!slices.Equal(c.Removed[:min(len(c.Removed), 4)], want[:min(len(c.Removed), 4)]) {
		t.Errorf("removed %v", c.Removed)
	}
	if c.Short() || c.Full() || c.Used*100 > c.Capacity*40 {
		t.Errorf("not enough: %+v", c)
	}
	for _, name := range []string{"hand", "others", "kept", "unknown", "f"} {
		if !slices.Contains(g.names(t), image(name)) {
			t.Errorf("%s was removed", name)
		}
	}
	// Nothing is left that may go: it says so.
	for _, name := range []string{"x", "y", "z"} {
		pull(name)
		g.relabel(t, image(name), map[string]string{labelUsedBy + "another": hours(3)})
	}
	c = g.collect(t, image("kept"), image("c"), image("f"))
	if !c.Short() || c.Wanted == 0 || len(c.Removed) > 0 {
		t.Errorf("short of room: %+v", c)
	}
	// What a container was made of stays, though nobody waits with it.
	if !slices.Contains(g.names(t), "docker.io/library/busybox:1.37") {
		t.Errorf("an image in use was removed: %v", g.names(t))
	}
	p.remove()
	g.relabel(t, "docker.io/library/busybox:1.37", map[string]string{mine: hours(1)})
	clear(g.rt.gc.used)
	if c := g.collect(t, image("kept"), image("c"), image("f")); !slices.Equal(c.Removed, []string{"docker.io/library/busybox:1.37"}) {
		t.Errorf("after its last container has gone: %+v", c)
	}
	// An image that was collected is pulled again when it is needed.
	q := g.pod("later")
	q.add("main", "sh", "-c", "exit 7")
	if c, _ := q.run(); c.ExitCode != 7 {
		t.Errorf("%+v", c)
	}
	q.remove()
}

// Use is written down, so that it outlives the agent.
func TestImageUseIsKept(t *testing.T) {
	g := newRig(t)
	g.image("busybox:1.37")
	const image = "docker.io/library/busybox:1.37"
	mine := labelUsedBy + g.opts.Instance
	old := stamp(time.Now().Add(-48 * time.Hour))
	g.relabel(t, image, map[string]string{mine: old})
	g.collect(t, "busybox:1.37")
	img, err := g.rt.client.ImageService().Get(namespaces.WithNamespace(g.ctx, namespace), image)
	if err != nil {
		t.Fatal(err)
	}
	if since := time.Since(moment(img.Labels[mine])); since > time.Minute {
		t.Errorf("last used %v ago", since)
	}
	g.relabel(t, image, map[string]string{mine: ""}) // as other tests' instances do not use it any more
}

func TestWatermarksThatAreNone(t *testing.T) {
	for _, o := range []Options{{ImageGCHigh: 101}, {ImageGCHigh: 50, ImageGCLow: 60}, {ImageGCHigh: 80, ImageGCLow: -1}} {
		o.Address, o.Instance, o.DataDir, o.RunDir = testDaemon.Address(), "x", t.TempDir(), t.TempDir()
		if _, err := New(o); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%d, %d: %v", o.ImageGCHigh, o.ImageGCLow, err)
		}
	}
	r, err := New(Options{Address: testDaemon.Address(), Instance: "x", DataDir: t.TempDir(), RunDir: t.TempDir(), ImageGCHigh: 70})
	if err != nil || r.gc.high != 70 || r.gc.low != 70 {
		t.Fatalf("%v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
