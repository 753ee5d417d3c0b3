package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// A PID namespace lives only as long as its process 1. A pod whose containers
// share one (shareProcessNamespace) therefore has a process of ours in it, which
// does nothing but reap: pauseProgram. It is in a session of its own, as user
// nobody can be, without capabilities, in the pod's other namespaces and with a
// file system that holds itself alone, so that /proc/1/root leads nowhere.
//
// Nothing remembers its number: it is whatever is in the cgroup
// <pod's cgroup>/pause, where no container can be. It outlives the agent, and
// ends with the sandbox. When it ends before, the kernel ends the pod's
// containers, and the sandbox counts as gone.

const (
	pauseName = "pause"
	pauseUser = 65535 // as Kubernetes' own
	pauseEnds = 5 * time.Second
)

var nsPID = nsKind{"pid", unix.CLONE_NEWPID}

func (r *Runtime) pauseCgroup(uid types.UID) string { return r.podCgroup(uid) + "/" + pauseName }

// startPause starts the process and pins its PID namespace at dir/pid. kinds are
// the pod's namespaces that it joins, pinned in dir.
func (r *Runtime) startPause(uid types.UID, dir string, kinds []nsKind) (err error) {
	p, err := preparePause(dir)
	if err != nil {
		return err
	}
	defer p.close()
	joined, err := openNamespaces(dir, kinds)
	if err != nil {
		return err
	}
	pid, err := p.start(func(wait int) (int, error) { return pauseOnThread(p.program, p.root, joined, wait) })
	for _, f := range joined {
		f.Close()
	}
	if err != nil {
		return fmt.Errorf("make the pod's process 1: %w", err)
	}
	if err := r.joinPauseCgroup(uid, pid); err != nil {
		return err
	}
	if err := pinOf(pid, nsPID, dir); err != nil {
		return err
	}
	return p.letGo()
}

// A preparedPause is what a process 1 is made from. It waits to be let go, and
// ends when it is not.
type preparedPause struct {
	program     []byte
	root        string   // where its file system is put together
	begin, hold *os.File // the ends of what it waits at: its own, and ours
}

// preparePause makes ready what is needed for a process 1 in the pod's directory.
// Close it in the end.
func preparePause(dir string) (*preparedPause, error) {
	program, err := pauseProgram()
	if err != nil {
		return nil, err
	}
	p := &preparedPause{program: program, root: filepath.Join(dir, pauseName)}
	if err := os.Mkdir(p.root, 0o755); err != nil {
		return nil, err
	}
	p.begin, p.hold, err = os.Pipe()
	return p, err
}

// start calls run with the number of the file that the process is to wait at, on
// a thread of its own, which ends after it.
func (p *preparedPause) start(run func(wait int) (pid int, err error)) (pid int, err error) {
	done := make(chan struct{})
	go onThread(func() {
		defer close(done)
		pid, err = run(int(p.begin.Fd()))
	})
	<-done
	return pid, err
}

func (p *preparedPause) letGo() error {
	if _, err := p.hold.Write([]byte{1}); err != nil {
		return fmt.Errorf("let the pod's process 1 go: %w", err)
	}
	return nil
}

func (p *preparedPause) close() {
	p.begin.Close()
	p.hold.Close()
}

// openNamespaces opens what is pinned in dir. Close the files.
func openNamespaces(dir string, kinds []nsKind) (files []*os.File, err error) {
	for _, k := range kinds {
		f, err := os.Open(filepath.Join(dir, k.name))
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// leaveFiles gives the thread a file system that holds the program alone, and
// what it starts no more rights. That is in a mount namespace which has nothing
// else mounted: a copy of the host's mounts would hold the other pods' volumes
// after they are unmounted. proc is "" or where /proc is mounted.
func leaveFiles(program []byte, root, proc string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part the mounts from the host's: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount(pauseName, root, "tmpfs", flags, "mode=0555,size=64k,nr_inodes=4"); err != nil {
		return fmt.Errorf("mount its root: %w", err)
	}
	if err := os.WriteFile(filepath.Join(root, pauseName), program, 0o555); err != nil {
		return err
	}
	if proc != "" {
		at := filepath.Join(root, proc)
		if err := errors.Join(os.Mkdir(at, 0o555), unix.Mount("proc", at, "proc", flags|unix.MS_NOEXEC, "")); err != nil {
			return fmt.Errorf("mount its /proc: %w", err)
		}
	}
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY|flags, ""); err != nil {
		return fmt.Errorf("close its root: %w", err)
	}
	if err := errors.Join(unix.Chdir(root), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/")); err != nil {
		return fmt.Errorf("leave the host's files: %w", err)
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// pauseOnThread starts the program from within a file system of its own, in the
// pod's namespaces.
func pauseOnThread(program []byte, root string, joined []*os.File, wait int) (int, error) {
	if err := leaveFiles(program, root, ""); err != nil {
		return 0, err
	}
	for _, f := range joined {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return 0, fmt.Errorf("join %s: %w", f.Name(), err)
		}
	}
	return syscall.ForkExec("/"+pauseName, []string{"/" + pauseName}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: []uintptr{uintptr(wait)},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID, Setsid: true,
			Credential: &syscall.Credential{Uid: pauseUser, Gid: pauseUser},
		},
	})
}

// joinPauseCgroup takes the process out of the agent's cgroups, in every
// hierarchy. cpuset's is left out: a new cgroup of v1 has no processors there.
func (r *Runtime) joinPauseCgroup(uid types.UID, pid int) error {
	seen := map[string]bool{}
	for name, mount := range r.limits.cgroup {
		if name == "cpuset" || seen[mount] {
			continue
		}
		seen[mount] = true
		dir := filepath.Join(mount, r.pauseCgroup(uid))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the cgroup of the pod's process 1: %w", err)
		}
		if err := writeCgroup(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// pauses lists the pod's process 1; none when it has ended.
func (r *Runtime) pauses(uid types.UID) (pids []int, err error) {
	root := r.limits.cgroup["cpu"]
	if r.limits.v2() {
		root = r.limits.cgroup[""]
	}
	text, err := os.ReadFile(filepath.Join(root, r.pauseCgroup(uid), "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	for _, field := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// pauseLives says whether the pod's PID namespace can be joined.
func (r *Runtime) pauseLives(uid types.UID) bool {
	pids, err := r.pauses(uid)
	return err == nil && len(pids) > 0
}

// endPause ends the pod's process 1, if it has one, and waits for its end. The
// kernel ends first what is left in its namespace.
func (r *Runtime) endPause(uid types.UID) error {
	pids, err := r.pauses(uid)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := endProcess(pid, pauseEnds); err != nil {
			return fmt.Errorf("end process 1 of pod %s: %w", uid, err)
		}
	}
	ctx, cancel := context.WithTimeout(r.life, pauseEnds)
	defer cancel()
	for { // an ended process leaves its cgroup a moment later
		err := r.removeCgroup(r.pauseCgroup(uid))
		if !errors.Is(err, unix.EBUSY) || !wait(ctx, time.Millisecond) {
			return err
		}
	}
}

// endProcess kills a process and waits until it is gone.
func endProcess(pid int, most time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	for until := time.Now().Add(most); !ended(fd); {
		if time.Now().After(until) {
			return fmt.Errorf("process %d does not die: %w", pid, schema.ErrUnavailable)
		}
		// An error of the poller (a signal) makes one look more.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
	}
	// Of a run before this one it is no child, and others have reaped it.
	_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	return nil
}

// sharesPID says whether the pod's containers see each other's processes.
func sharesPID(p *corev1.Pod) bool {
	return p.Spec.ShareProcessNamespace != nil && *p.Spec.ShareProcessNamespace && !p.Spec.HostPID
}
