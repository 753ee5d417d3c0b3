package containerd

import (
	"os"
	"path/filepath"
	"testing"
)

func TestShimsAreKnownByTheirAddress(t *testing.T) {
	shim := []string{"/usr/bin/containerd-shim-runc-v2", "-namespace", "pawl", "-id", "x", "-address", "/run/pawl/containerd/containerd.sock"}
	for _, c := range []struct {
		args    []string
		address string
		want    bool
	}{
		{shim, "/run/pawl/containerd/containerd.sock", true},
		{shim, "/run/other/containerd/containerd.sock", false},
		{shim[:6], "/run/pawl/containerd/containerd.sock", false},
		{append([]string{"/usr/bin/containerd"}, shim[1:]...), "/run/pawl/containerd/containerd.sock", false},
		{[]string{""}, "", false},
	} {
		if got := isShimOf(c.args, c.address); got != c.want {
			t.Errorf("%q of %s: %t, want %t", c.args, c.address, got, c.want)
		}
	}
}

// A containerd of somebody else's is known by whatever path leads to its socket:
// /var/run mostly is a link to /run.
func TestShimByAnotherPath(t *testing.T) {
	dir := t.TempDir()
	mkdirAll(t, filepath.Join(dir, "run"))
	socket := filepath.Join(dir, "run", "containerd.sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("run", filepath.Join(dir, "var")); err != nil {
		t.Fatal(err)
	}
	args := []string{"/usr/bin/containerd-shim-runc-v2", "-address", socket, "-id", "x"}
	if !isShimOf(args, filepath.Join(dir, "var", "containerd.sock")) {
		t.Error("it is not known")
	}
	if isShimOf(args, filepath.Join(dir, "var", "other.sock")) {
		t.Error("it is taken for another's")
	}
}
