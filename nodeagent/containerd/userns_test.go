package containerd

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
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

// What is asked of a container with users of its own works in it as elsewhere: a
// user of the image's and of the manifest's, commands, files copied, a read-only
// root with the image's volumes, a termination message, a start after another.
func TestOwnUsersInFull(t *testing.T) {
	g := newRig(t)
	p := g.ownUsers("full")
	c := p.add("main", "sh", "-c", "trap 'exit 3' TERM; echo bye > /words; id -u; id -G; touch /data/x && echo kept; touch /x 2>/dev/null || echo read-only; sleep 600 & wait")
	c.Image, c.TerminationMessagePath = "stopper:1", "/words"
	c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To[int64](1000), RunAsGroup: ptr.To[int64](2000), ReadOnlyRootFilesystem: ptr.To(true)}
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To[int64](3000)}
	p.add("beside", "sleep", "600").TTY = true
	p.sandbox()
	first := g.rt.pods[p.UID].sandbox.Users
	for attempt := range 2 {
		main := p.start("main", attempt)
		if main.StartError != "" {
			t.Fatal(main.StartError)
		}
		pollEach(t, 50*time.Millisecond, "it said all", func() bool { return strings.Contains(readLog(t, main.LogPath), "read-only") })
		if got := readLog(t, main.LogPath); got != "1000\n2000 3000\nkept\nread-only\n" {
			t.Errorf("attempt %d says %q", attempt, got)
		}
		if got := p.in(main.ID, "id -u; cat /proc/self/uid_map | tr -s ' '"); got != fmt.Sprintf("1000\n 0 %d 65536\n", first) {
			t.Errorf("a command says %q", got)
		}
		if err := g.rt.Signal(g.ctx, main.ID, "TERM", time.Now()); err != nil {
			t.Fatal(err)
		}
		seen := p.await("it ended", func(s pod.Seen) bool {
			for _, c := range s.Containers {
				if c.ID == main.ID {
					return c.State == pod.ContainerExited
				}
			}
			return false
		})
		for _, c := range seen.Containers {
			if c.ID == main.ID && (c.ExitCode != 3 || c.Message != "bye\n") {
				t.Errorf("it ended as %+v", c)
			}
		}
	}
	beside := p.start("beside", 0)
	task, err := g.rt.process(g.ctx, beside.ID)
	if err != nil || task == nil {
		t.Fatal(task, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", task.Pid), &st); err != nil || st.Uid != first {
		t.Errorf("on the node it runs as %d (%v), want %d", st.Uid, err, first)
	}
	p.remove()
}

// The processes of a pod with users of its own can be shared among its
// containers; process 1 is one of the pod's users too, and leads to no files.
func TestOwnUsersShareProcesses(t *testing.T) {
	g := newRig(t)
	p := g.shared("shared", "one", "two")
	p.Spec.HostUsers = new(bool)
	p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_PTRACE"}}}
	p.sandbox()
	one, two := p.start("one", 0), p.start("two", 0)
	ps := p.in(one.ID, "ps -o pid,user,args")
	if strings.Count(ps, "sleep 1000") != 2 || !strings.Contains(ps, "1 65535    /pause") {
		t.Errorf("ps in one container:\n%s", ps)
	}
	if got := p.in(one.ID, "ls /proc/1/root/ /proc/1/root/proc"); got != "/proc/1/root/:\npause\nproc\n\n/proc/1/root/proc:\n" {
		t.Errorf("files of process 1: %q", got)
	}
	g.reopen()
	if s := p.look(); !s.Sandbox.Ready || len(s.Containers) != 2 {
		t.Errorf("after a restart of the agent there is %+v", s)
	}
	p.in(two.ID, "true")
	p.remove()
}

// No two pods have a range in common, whoever was killed meanwhile, and one that
// is gone leaves its range to others.
func TestRangesOfUsers(t *testing.T) {
	g := newRig(t)
	before := g.counts()
	seen := map[uint32]string{}
	var all []*testPod
	for i := range 4 {
		p := g.ownUsers(fmt.Sprint("p", i))
		p.sandbox()
		if i == 2 {
			g.reopen()
		}
		s, err := g.rt.sandbox(p.UID)
		if err != nil || s == nil {
			t.Fatal(s, err)
		}
		if s.Users < rangeFirst || s.Users%rangeSize != 0 || seen[s.Users] != "" {
			t.Errorf("%s has the users from %d on, so has %q", p.Name, s.Users, seen[s.Users])
		}
		seen[s.Users] = p.Name
		all = append(all, p)
	}
	// The agent was killed when it had made the directory alone.
	half := g.ownUsers("half")
	mkdirAll(t, g.rt.podDir(half.UID))
	taken, err := g.rt.takeRange(half.UID)
	if err != nil || seen[taken] != "" {
		t.Errorf("range %d: %v", taken, err)
	}
	g.reopen()
	half.sandbox()
	freed := g.rt.pods[all[0].UID]
	if freed == nil {
		if _, err := g.rt.sandbox(all[0].UID); err != nil {
			t.Fatal(err)
		}
		freed = g.rt.pods[all[0].UID]
	}
	all[0].remove()
	again := g.ownUsers("again")
	again.sandbox()
	if got := g.rt.pods[again.UID].sandbox.Users; got != freed.sandbox.Users {
		t.Errorf("a range that is free again, %d, is not taken; %d is", freed.sandbox.Users, got)
	}
	for _, p := range append(all[1:], half, again) {
		p.remove()
	}
	after := g.counts()
	for _, what := range []string{"mounts", "run files", "addresses"} {
		if after[what] != before[what] {
			t.Errorf("%s: %d, before %d", what, after[what], before[what])
		}
	}
}

// What cannot be is refused, with the reason.
func TestOwnUsersRefused(t *testing.T) {
	g := newRig(t)
	p := g.ownUsers("refused")
	p.add("big", "true").SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To[int64](65536)}
	p.add("main", "true")
	p.sandbox()
	_, err := g.rt.Start(g.ctx, p.request("big", 0))
	if !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), "user or group 65536: with hostUsers: false there are those below 65536") {
		t.Errorf("a user outside of the range: %v", err)
	}
	q := p.request("main", 0)
	q.Mounts = []nodeagent.Mount{{HostPath: "/proc", ContainerPath: "/data"}}
	if _, err = g.rt.Start(g.ctx, q); !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), "the volume at /data: hostUsers: the users of /proc cannot be translated") {
		t.Errorf("a volume that cannot be translated: %v", err)
	}
	q.Mounts = nil
	if c, err := g.rt.Start(g.ctx, q); err != nil || c.StartError != "" {
		t.Errorf("the same without it: %v, %s", err, c.StartError)
	}
	p.await("ended", func(s pod.Seen) bool { return len(s.Containers) == 1 && s.Containers[0].State == pod.ContainerExited })
	p.remove()
}

// A node that cannot give a pod users of its own says why.
func TestNoOwnUsers(t *testing.T) {
	for err, want := range map[error]string{
		unix.ENOSPC: "this node's kernel gives no more user namespaces (sysctl user.max_user_namespaces)",
		unix.EUSERS: "this node's kernel gives no more user namespaces (sysctl user.max_user_namespaces)",
		unix.EINVAL: "this node's kernel has no user namespaces",
		unix.EPERM:  "this node does not let the agent make user namespaces",
	} {
		if got := noUserNamespace(fmt.Errorf("fork: %w", err)); !errors.Is(got, schema.ErrRefused) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if got := noUserNamespace(unix.EAGAIN); errors.Is(got, schema.ErrRefused) || !errors.Is(got, unix.EAGAIN) {
		t.Errorf("EAGAIN: %v", got)
	}

	dir := t.TempDir()
	inner := filepath.Join(dir, "closed", "run")
	mkdirAll(t, inner)
	for _, d := range []string{dir, filepath.Dir(dir), inner} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(inner), 0o710); err != nil {
		t.Fatal(err)
	}
	if err := checkWay(inner); !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), filepath.Dir(inner)+" lets nobody but") {
		t.Errorf("a directory that is closed to others: %v", err)
	}
	if err := os.Chmod(filepath.Dir(inner), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := checkWay(inner); err != nil {
		t.Error(err)
	}
}

// Unmasked has nothing hidden below /proc.
func TestOwnUsersUnmasked(t *testing.T) {
	g := newRig(t)
	p := g.ownUsers("unmasked")
	c := p.add("main", "sh", "-c", "cat /proc/timer_list >/dev/null 2>&1; grep -c ' /proc/' /proc/self/mountinfo; mount -t proc none /dev/shm && echo mounted")
	c.SecurityContext = &corev1.SecurityContext{ProcMount: ptr.To(corev1.UnmaskedProcMount), Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}}
	if c, out := p.run(); c.StartError != "" || out != "0\nmounted\n" {
		t.Errorf("%s: %q", c.StartError, out)
	}
	p.remove()
}

// Files go in as those of the pod's root and come out with their owners there.
func TestOwnUsersCopy(t *testing.T) {
	g := newRig(t)
	p := g.ownUsers("copy")
	p.add("main", "sh", "-c", "mkdir /from; echo one > /from/file; chown 5:6 /from/file; ln -s file /from/link; chown -h 7:8 /from/link; exec sleep 600")
	p.sandbox()
	id := p.start("main", 0).ID
	pollEach(t, 50*time.Millisecond, "the files are there", func() bool { return p.in(id, "stat -c %u /from/link 2>/dev/null || true") == "7\n" })
	var out bytes.Buffer
	if err := g.rt.ReadArchive(g.ctx, id, "/from", &out); err != nil {
		t.Fatal(err)
	}
	owners := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(out.Bytes())); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		owners[path.Base(h.Name)] = fmt.Sprintf("%d:%d", h.Uid, h.Gid)
	}
	if owners["file"] != "5:6" || owners["link"] != "7:8" {
		t.Errorf("owners in the archive: %v", owners)
	}
	if err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/to"}, &out); err != nil {
		t.Fatal(err)
	}
	if got := p.in(id, "stat -c '%u:%g' /to /to/file; cat /to/file"); got != "0:0\n0:0\none\n" {
		t.Errorf("what was copied in: %q", got)
	}
	p.remove()
}
