package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
)

// ownUsers is a pod with hostUsers: false.
func (g *rig) ownUsers(name string) *testPod {
	p := g.pod(name)
	p.Spec.HostUsers = new(bool)
	return p
}

// Root in a pod with users of its own is root there and nobody on the node. It
// owns what its image's root owns, and its namespaces; what it writes to a volume
// has on disk the numbers that it has in the pod.
func TestOwnUsers(t *testing.T) {
	g := newRig(t)
	p := g.ownUsers("mapped")
	c := p.add("main", "sh", "-c", `exec 2>/dev/null
id -u; cat /proc/self/uid_map /proc/self/gid_map
stat -c '%u:%g %n' / /bin/busybox /etc/hosts /dev/shm /data /secret/word /proc/1
echo more >> /etc/hosts; touch /root-file /dev/shm/x && echo wrote
touch /data/root; chown 1000:1000 /data/root; mkdir /data/d; chown 65535 /data/d
cat /secret/word; touch /secret/word || echo the secret is read-only
hostname; hostname other && hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start
chown 65536 /root-file || echo no such user
mount -t tmpfs none /dev/shm && echo a mount of its own
echo 1 > /proc/sys/kernel/panic || echo not the node`)
	c.SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}}
	p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "443"}}}
	volume, secret := t.TempDir(), t.TempDir()
	if err := unix.Mount("none", secret, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	defer unmount(secret)
	if err := os.WriteFile(filepath.Join(secret, "word"), []byte("hidden\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	p.sandbox()
	first := g.rt.pods[p.UID].sandbox.Users
	q := p.request("main", 0)
	q.Mounts = []nodeagent.Mount{{HostPath: volume, ContainerPath: "/data"}, {HostPath: secret, ContainerPath: "/secret", ReadOnly: true}}
	if c, err := g.rt.Start(g.ctx, q); err != nil || c.StartError != "" {
		t.Fatal(err, c.StartError)
	}
	out := p.output(p.exit())
	var fields []string
	for line := range strings.Lines(out) {
		fields = append(fields, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"0", fmt.Sprintf("0 %d 65536", first), fmt.Sprintf("0 %d 65536", first),
		"0:0 /", "0:0 /bin/busybox", "0:0 /etc/hosts", "0:0 /dev/shm", "0:0 /data", "0:0 /secret/word", "0:0 /proc/1",
		"wrote", "hidden", "the secret is read-only",
		"mapped", "other", "443", "no such user", "a mount of its own",
		"not the node",
	}
	if got := strings.Join(fields, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the container says\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	for name, want := range map[string]string{"root": "1000:1000", "d": "65535:0"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(volume, name), &st); err != nil || fmt.Sprintf("%d:%d", st.Uid, st.Gid) != want {
			t.Errorf("%s in the volume is of %d:%d (%v), want %s", name, st.Uid, st.Gid, err, want)
		}
	}
	if left, err := mountsBelow(filepath.Join(g.rt.podDir(p.UID), "mapped")); err != nil || len(left) > 0 {
		t.Errorf("mounts that a start needed are left: %v, %v", left, err)
	}
	p.remove()
	if _, err := os.Stat(g.rt.podDir(p.UID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pod's directory is left: %v", err)
	}
}
