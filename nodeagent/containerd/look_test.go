package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What an agent had mounted to look into an image when it was killed goes when the
// next begins.
func TestKilledWhileItLooksIntoAnImage(t *testing.T) {
	g := newRig(t)
	manager := g.rt.client.LeasesService()
	if _, err := manager.Create(g.ctx, g.rt.images.moment()...); err != nil {
		t.Fatal(err)
	}
	g.shut()
	left := filepath.Join(g.opts.RunDir, "looks", "left")
	mkdirAll(t, left)
	if err := unix.Mount("left", left, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "passwd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.open()
	if _, err := os.Lstat(left); err == nil {
		t.Error("it is left")
	}
	if left := mountsOf(t, g); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
		if err := unmount(left[0]); err != nil {
			t.Error(err)
		}
	}
	if _, err := g.rt.Seen(g.ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := g.rt.client.LeasesService().List(g.ctx); err != nil || len(left) > 0 {
		t.Errorf("leases are left: %v, %v", left, err)
	}
	p := g.pod("after")
	p.add("main", "true")
	if c, _ := p.run(); c.ExitCode != 0 {
		t.Errorf("afterwards: %+v", c)
	}
	p.remove()
}
