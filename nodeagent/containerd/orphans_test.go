package containerd

import "testing"

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
