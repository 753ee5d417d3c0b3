package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Cgroups: /pawl/<instance>/pod<uid>/<container id> in every hierarchy. runc
// makes and removes the last part; the pod's part is made with the sandbox,
// because its shares weigh pods against each other, and removed with it.

func (r *Runtime) instanceCgroup() string { return "/pawl/" + r.opts.Instance }

func (r *Runtime) podCgroup(uid types.UID) string {
	return r.instanceCgroup() + "/pod" + string(uid)
}

func (r *Runtime) containerCgroup(uid types.UID, id string) string {
	return r.podCgroup(uid) + "/" + id
}

// makeCgroup makes the pod's cgroup where it carries a setting of its own.
func (r *Runtime) makeCgroup(p *corev1.Pod) error {
	res := podResources(p, r.opts.PodPids)
	path := r.podCgroup(p.UID)
	if r.limits.v2() {
		dir, err := r.makeCgroup2(path)
		if err != nil {
			return err
		}
		return applySettings(res.settings2(), func(string) string { return dir })
	}
	return r.makeCgroup1(path, res)
}

func (r *Runtime) makeCgroup1(path string, res resources) error {
	settings := res.settings1()
	for _, s := range settings {
		if err := os.MkdirAll(filepath.Join(r.limits.cgroup[s.controller], path), 0o755); err != nil {
			return fmt.Errorf("make the pod's cgroup: %w", err)
		}
	}
	return applySettings(settings, func(controller string) string { return filepath.Join(r.limits.cgroup[controller], path) })
}

// applySettings writes the settings. A weight that the machine has no
// controller for is done without; a limit is not.
func applySettings(settings []setting, dir func(controller string) string) error {
	for _, s := range settings {
		err := writeCgroup(dir(s.controller), s.file, s.value)
		if err != nil && !(s.file == "cpu.weight" && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// makeCgroup2 makes a cgroup of v2, with every controller there is.
func (r *Runtime) makeCgroup2(path string) (string, error) {
	root := r.limits.cgroup[""]
	dir := root
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		for _, c := range []string{"+cpu", "+memory", "+pids", "+cpuset", "+io"} {
			// A controller the machine does not have is one less to set; a limit
			// that then cannot be set makes runc fail, and says so.
			if err := writeCgroup(dir, "cgroup.subtree_control", c); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EOPNOTSUPP) {
				return "", err
			}
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("make the pod's cgroup: %w", err)
		}
	}
	return dir, nil
}

// weight turns v1's shares (2 to 262144) into v2's weight (1 to 10000), as runc does.
func weight(shares uint64) uint64 {
	if shares < 2 {
		return 1
	}
	return 1 + (shares-2)*9999/262142
}

func writeCgroup(dir, file, value string) error {
	// Never create: a file that is not there is a setting the kernel does not have.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set %s: %w", file, err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s to %s: %w", file, value, err)
	}
	return nil
}

// removeCgroup removes a cgroup and all below it, in every hierarchy. A cgroup
// with a living process in it refuses.
func (r *Runtime) removeCgroup(path string) error {
	var faults []error
	seen := map[string]bool{}
	for _, mount := range r.limits.cgroup {
		dir := filepath.Join(mount, path)
		if seen[dir] {
			continue
		}
		seen[dir] = true
		faults = append(faults, removeCgroupTree(dir))
	}
	return errors.Join(faults...)
}

func removeCgroupTree(dir string) error {
	err := unix.Rmdir(dir) // mostly it is empty, or not there
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, readErr := os.ReadDir(dir)
	if errors.Is(readErr, fs.ErrNotExist) {
		return nil
	}
	if readErr != nil {
		return readErr
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroupTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}

// oomKilled says whether the kernel killed a process of the container for want
// of memory, and it ended for it. The counter lives as long as the task does, so
// it answers also for what happened while nobody listened.
func (r *Runtime) oomKilled(rec record, code int32) bool {
	if code == 0 {
		return false
	}
	return r.limits.oomKills(r.containerCgroup(rec.uid, rec.ID)) > 0
}

// oomKills is how many processes of a cgroup, and on v2 of those below it, the
// kernel killed for want of memory. Of one that is gone nobody can tell.
func (h host) oomKills(path string) uint64 {
	file := filepath.Join(h.cgroup["memory"], path, "memory.oom_control")
	if h.v2() {
		file = filepath.Join(h.cgroup[""], path, "memory.events")
	}
	var read cgroupReader
	kills, err := read.field(file, "oom_kill")
	if err != nil {
		return 0
	}
	return kills
}
