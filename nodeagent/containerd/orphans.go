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
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

// killCgroup ends every process below a cgroup of ours: containers that no
// record knows of, because their shim or containerd was killed while it made them.
func (r *Runtime) killCgroup(path string) error {
	return r.eachProcess(path, func(pid int) error {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end process %d of %s: %w", pid, path, err)
		}
		return nil
	})
}

// anyIn says whether there is a process in the cgroup and those below it.
func (r *Runtime) anyIn(path string) (found bool, err error) {
	err = r.eachProcess(path, func(int) error { found = true; return nil })
	return found, err
}

// eachProcess calls do for the processes in the cgroup and those below it.
func (r *Runtime) eachProcess(path string, do func(pid int) error) error {
	root := r.limits.cgroup["cpu"]
	if r.limits.v2() {
		root = r.limits.cgroup[""]
	}
	return filepath.WalkDir(filepath.Join(root, path), func(dir string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV): // it was removed meanwhile
		case errors.Is(err, unix.EOPNOTSUPP): // a threaded one of v2: the one above that is not has its processes
		case err != nil:
			return err
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				if err := do(pid); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// endOrphan ends what is left of a container that containerd has forgotten
// although its process lives: containerd and the shim were killed together.
// runc's state tells; it would refuse the container's next start.
func (r *Runtime) endOrphan(ctx context.Context, rec record) error {
	state := filepath.Join(r.runcRoot(), namespace, rec.ID)
	if _, err := os.Lstat(state); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r.log.Warn("ending a container that containerd has forgotten", "pod", rec.key, "container", rec.Name, "id", rec.ID)
	path := r.containerCgroup(rec.uid, rec.ID)
	if err := r.killCgroup(path); err != nil {
		return err
	}
	for { // a killed process leaves its cgroup a moment later
		err := r.removeCgroup(path)
		if err == nil {
			return os.RemoveAll(state)
		}
		if !errors.Is(err, unix.EBUSY) || !wait(ctx, 10*time.Millisecond) {
			return fmt.Errorf("end container %s: %w: %w", rec.ID, err, schema.ErrUnavailable)
		}
	}
}
