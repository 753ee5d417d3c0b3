package containerd

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// A privileged container with users of its own has every right there, and none
// over the node.
func TestOwnUsersPrivileged(t *testing.T) {
	g := newRig(t)
	p := g.ownUsers("privileged")
	c := p.add("main", "sh", "-c", "exec 2>/dev/null; mount -t tmpfs none /dev/shm && echo mounted; echo 1 > /proc/sys/kernel/panic || echo not the node; mknod /disk b 8 0 || echo no device; ls /dev/null")
	c.SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	if c, out := p.run(); c.StartError != "" || strings.Join(strings.Fields(out), " ") != "mounted not the node no device /dev/null" {
		t.Errorf("%s: %q", c.StartError, out)
	}
	p.remove()
}
