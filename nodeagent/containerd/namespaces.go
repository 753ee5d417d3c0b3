package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// A nsKind is a namespace that a pod's containers share.
type nsKind struct {
	name string // of the file in /proc/<pid>/ns, and of our pin
	flag int
}

var (
	nsNet = nsKind{"net", unix.CLONE_NEWNET}
	nsIPC = nsKind{"ipc", unix.CLONE_NEWIPC}
	nsUTS = nsKind{"uts", unix.CLONE_NEWUTS}
)

// pinNamespaces makes new namespaces and pins each by a bind mount at
// dir/<name>: they live as long as the mount, with no process in them.
func pinNamespaces(dir string, kinds []nsKind, hostname string) error {
	if len(kinds) == 0 {
		return nil
	}
	for _, k := range kinds {
		f, err := os.OpenFile(filepath.Join(dir, k.name), os.O_CREATE|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		f.Close()
	}
	done := make(chan error, 1)
	go onThread(func() { done <- pinOnThread(dir, kinds, hostname) })
	if err := <-done; err != nil {
		return errors.Join(fmt.Errorf("make the pod's namespaces: %w", err), unpinNamespaces(dir))
	}
	return nil
}

// onThread runs f on a thread that ends with it. The main thread cannot end, and
// /proc/self shows its namespaces: it must not be the one.
func onThread(f func()) {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThread(f) // the main thread is held here, so this is another
	}()
	<-done
	runtime.UnlockOSThread()
}

func pinOnThread(dir string, kinds []nsKind, hostname string) error {
	flags := 0
	for _, k := range kinds {
		flags |= k.flag
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if flags&unix.CLONE_NEWUTS != 0 && hostname != "" {
		if err := unix.Sethostname([]byte(hostname)); err != nil {
			return fmt.Errorf("set the host name %q: %w", hostname, err)
		}
	}
	if flags&unix.CLONE_NEWNET != 0 {
		if err := setLoopbackUp(); err != nil {
			return err
		}
	}
	for _, k := range kinds {
		from := fmt.Sprintf("/proc/self/task/%d/ns/%s", unix.Gettid(), k.name)
		if err := unix.Mount(from, filepath.Join(dir, k.name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin the %s namespace: %w", k.name, err)
		}
	}
	return nil
}

// setLoopbackUp acts in the thread's network namespace.
func setLoopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

// unpinNamespaces undoes pinNamespaces, all or part of it.
func unpinNamespaces(dir string) error {
	var faults []error
	for _, k := range []nsKind{nsNet, nsIPC, nsUTS, nsPID, nsUser} {
		faults = append(faults, unmount(filepath.Join(dir, k.name)))
	}
	return errors.Join(faults...)
}

// unmount unmounts a path as often as something is mounted on it.
func unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, fs.ErrNotExist):
			return nil // not a mount, or not there
		default:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// pinned says whether a namespace is mounted at the path. After a restart of the
// machine there is only the empty file.
func pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}
