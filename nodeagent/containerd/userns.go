package containerd

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// A pod with hostUsers: false has a user namespace: its root and its users 1 to
// 65535 are users of the node that nobody else is, with no rights outside of the
// pod. Each such pod has a range of its own, so that what breaks out of one can
// do nothing in another.
//
// The range is written to the pod's directory before it is used and goes with
// it: a range is taken as long as a directory says so. It need not outlive the
// machine's restart. All that a container leaves behind it wrote through mounts
// that translate (idmap.go); on disk it has the numbers it has in the pod. Only
// its own layer, which goes with it, has the node's.
//
// The pod's other namespaces belong to the user namespace, or its root could do
// nothing in them. The kernel makes them so when all are made with one process.

var nsUser = nsKind{"user", unix.CLONE_NEWUSER}

// A range is rangeSize users beginning at a multiple of it. Those from rangeFirst
// on lie above what directories of people and systemd's containers take, and
// below what systemd calls foreign.
const (
	rangeSize  = 1 << 16
	rangeFirst = 30528 * rangeSize // 2,000,683,008
	rangeCount = 2238
)

// usersFile is where a pod's directory says which range it has.
const usersFile = "users"

func usesUserNamespace(p *corev1.Pod) bool { return p.Spec.HostUsers != nil && !*p.Spec.HostUsers }

// takeRange gives the pod a range that no other pod of this instance has, and
// says so in its directory. Each instance begins to look elsewhere: those of one
// machine do not know each other's.
func (r *Runtime) takeRange(uid types.UID) (uint32, error) {
	if err := checkWay(r.opts.RunDir); err != nil {
		return 0, err
	}
	r.ranges.Lock()
	defer r.ranges.Unlock()
	uids, err := r.sandboxes()
	if err != nil {
		return 0, err
	}
	taken := map[uint32]bool{}
	for _, other := range uids {
		first, err := readRange(r.podDir(other))
		if err != nil {
			return 0, err
		}
		taken[first] = true
	}
	begin := fnv.New32a()
	begin.Write([]byte(r.opts.Instance))
	for i := range uint32(rangeCount) {
		first := rangeFirst + (begin.Sum32()%rangeCount+i)%rangeCount*rangeSize
		if !taken[first] {
			return first, writeFile(filepath.Join(r.podDir(uid), usersFile), []byte(strconv.FormatUint(uint64(first), 10)+"\n"), 0o644)
		}
	}
	return 0, fmt.Errorf("hostUsers: all %d ranges of users are taken: %w", rangeCount, schema.ErrUnavailable)
}

// isRange says whether a pod's range may begin there.
func isRange(first uint32) bool {
	return first >= rangeFirst && first%rangeSize == 0 && (first-rangeFirst)/rangeSize < rangeCount
}

// checkWay refuses a directory that the pod's users have no way to: on it runc
// enters the container's files as their root.
func checkWay(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("hostUsers: %s lets nobody but its owner and group in: choose another --run, or give it mode 0711: %w", dir, schema.ErrRefused)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// noUserNamespace is why none can be made.
func noUserNamespace(err error) error {
	for why, errnos := range map[string][]error{
		"this node's kernel gives no more user namespaces (sysctl user.max_user_namespaces)": {unix.ENOSPC, unix.EUSERS},
		"this node's kernel has no user namespaces":                                          {unix.EINVAL},
		"this node does not let the agent make user namespaces":                              {unix.EPERM},
	} {
		for _, errno := range errnos {
			if errors.Is(err, errno) {
				return fmt.Errorf("hostUsers: %s: %w: %w", why, err, schema.ErrRefused)
			}
		}
	}
	return fmt.Errorf("make the pod's user namespace: %w", err)
}

// readRange is the range that a pod's directory names; 0 when it names none.
func readRange(dir string) (uint32, error) {
	text, err := os.ReadFile(filepath.Join(dir, usersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	first, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return 0, nil // half written: it was never used
	}
	return uint32(first), nil
}

// mappings are the pod's users for the kernel; nil: they are the node's.
func (s *sandboxRecord) mappings() []specs.LinuxIDMapping {
	if s.Users == 0 {
		return nil
	}
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: s.Users, Size: rangeSize}}
}

// mapUsers puts the container's process into the pod's user namespace.
func (s *sandboxRecord) mapUsers(spec *specs.Spec) error {
	if s.Users == 0 {
		return nil
	}
	user := spec.Process.User
	for _, id := range append([]uint32{user.UID, user.GID}, user.AdditionalGids...) {
		if id >= rangeSize {
			return fmt.Errorf("user or group %d: with hostUsers: false there are those below %d: %w", id, rangeSize, schema.ErrRefused)
		}
	}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = s.mappings(), s.mappings()
	return nil
}

// makeUserNamespaces makes the pod's user namespace and what belongs to it, and
// pins them in dir. Where the pod's containers share their processes, process 1
// of those is what stays of it.
func (r *Runtime) makeUserNamespaces(s *sandboxRecord, dir, hostname string) (err error) {
	p, err := preparePause(dir)
	if err != nil {
		return err
	}
	defer p.close()
	kinds := s.kinds()
	pid, err := p.start(func(wait int) (int, error) { return pauseWithUsers(p.program, p.root, s, wait) })
	if err != nil {
		return noUserNamespace(err)
	}
	defer func() {
		if err != nil || !s.SharePID {
			err = errors.Join(err, endProcess(pid, pauseEnds))
		}
	}()
	if s.SharePID {
		kinds = append(kinds, nsPID)
		if err := r.joinPauseCgroup(s.UID, pid); err != nil {
			return err
		}
	}
	for _, k := range kinds {
		if err := pinOf(pid, k, dir); err != nil {
			return err
		}
	}
	if err := setUp(dir, hostname); err != nil {
		return err
	}
	if s.SharePID {
		return p.letGo()
	}
	return nil
}

// pauseWithUsers starts the program as the first process of all the pod's
// namespaces, in a file system of its own.
func pauseWithUsers(program []byte, root string, s *sandboxRecord, wait int) (int, error) {
	if err := leaveFiles(program, root, "proc"); err != nil {
		return 0, err
	}
	flags := uintptr(unix.CLONE_NEWPID)
	for _, k := range s.kinds() {
		flags |= uintptr(k.flag)
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(s.Users), Size: rangeSize}}
	pid, err := syscall.ForkExec("/"+pauseName, []string{"/" + pauseName}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: []uintptr{uintptr(wait)},
		Sys: &syscall.SysProcAttr{
			Cloneflags: flags, Setsid: true,
			UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{Uid: pauseUser, Gid: pauseUser},
		},
	})
	if err != nil {
		return 0, err
	}
	// The maps were written through /proc; the process keeps no way to it.
	if err := unix.Unmount("/proc", unix.MNT_DETACH); err != nil {
		return 0, errors.Join(fmt.Errorf("close the way to /proc: %w", err), endProcess(pid, pauseEnds))
	}
	return pid, nil
}

// pinOf pins a namespace of a process at dir/<name>.
func pinOf(pid int, k nsKind, dir string) error {
	at := filepath.Join(dir, k.name)
	f, err := os.OpenFile(at, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/%s", pid, k.name), at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin the %s namespace: %w", k.name, err)
	}
	return nil
}

// setUp names the pod's host and sets its loopback up, in its pinned namespaces.
func setUp(dir, hostname string) error {
	done := make(chan error, 1)
	go onThread(func() { done <- setUpOnThread(dir, hostname) })
	return <-done
}

func setUpOnThread(dir, hostname string) error {
	for _, k := range []nsKind{nsUTS, nsNet} {
		f, err := os.Open(filepath.Join(dir, k.name))
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Setns(int(f.Fd()), k.flag), f.Close()); err != nil {
			return fmt.Errorf("join the %s namespace: %w", k.name, err)
		}
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set the host name %q: %w", hostname, err)
	}
	return setLoopbackUp()
}
