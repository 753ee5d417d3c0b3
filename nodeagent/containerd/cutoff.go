package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// A start that is cut off, by the death of the agent that asked for it say, is
// not undone at once. containerd goes on clearing it away for up to a quarter of
// a minute; a shim that it was just starting waits for ever for somebody to read
// its log, and would be given every further container of the pod; and folders can
// stay for good. So a start that is tried again has a container id of its own,
// and what the one before left is ended and removed here.

// endCutOff ends what a start left that was cut off before the container began.
func (r *Runtime) endCutOff(ctx context.Context, rec record) error {
	r.markCutOff(rec.uid)
	if err := r.endIdleShims(ctx, rec.uid); err != nil {
		return err
	}
	if err := r.endTask(ctx, rec); err != nil {
		return err
	}
	return r.clearBundles(func(id string) bool { return id == rec.ID })
}

// bundles is where containerd keeps what its shims work in, below its state. A
// folder that it is removing has a dot before its name.
const bundles = "io.containerd.runtime.v2.task/" + namespace

// clearBundles removes the folders that containerd left of the containers whose
// ids are wanted; none of them has a task. The lock of their pod is held.
func (r *Runtime) clearBundles(wanted func(id string) bool) error {
	if r.opts.State == "" {
		return nil
	}
	dir := filepath.Join(r.opts.State, bundles)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		if wanted(strings.TrimPrefix(e.Name(), ".")) {
			r.log.Debug("removing what containerd left of a container", "folder", e.Name())
			faults = append(faults, dropBundle(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(faults...)
}

// dropBundle removes such a folder. What is mounted in it is not to be removed
// with it.
func dropBundle(path string) error {
	if err := unmount(filepath.Join(path, "rootfs")); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// markCutOff notes that a start of the pod was cut off, in a file: the pod may
// end in the care of another run. A pod without a directory has no shim either.
func (r *Runtime) markCutOff(uid types.UID) {
	err := os.WriteFile(r.cutOffMark(uid), nil, 0o600)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Nothing is held up by a full disk that may make room on it.
		r.log.Warn("that a start was cut off is not kept; a shim may be left after its pod", "pod", uid, "err", err)
	}
}

func (r *Runtime) cutOffMark(uid types.UID) string { return filepath.Join(r.podDir(uid), "cutoff") }

// clearCutOff ends and removes what came to light of starts that were cut off
// after their containers were removed: a shim that does not know that its last
// container is gone, say. The pod has no containers any more, and its lock is held.
func (r *Runtime) clearCutOff(ctx context.Context, uid types.UID) error {
	if _, err := os.Lstat(r.cutOffMark(uid)); err == nil { // else it is not worth a look at every process
		if err := errors.Join(r.endIdleShims(ctx, uid), r.killCgroup(r.podCgroup(uid))); err != nil {
			return err
		}
	}
	if err := os.Remove(r.shimSocket(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // one that was killed left it
	}
	return r.clearBundles(func(id string) bool { return r.isOfPod(id, uid) })
}

// endIdleShims ends the shims of a pod none of whose containers has a task, and
// what they started. The pod's lock is held, so that none is being started.
func (r *Runtime) endIdleShims(ctx context.Context, uid types.UID) error {
	// They are known by the address and the id in their arguments.
	ofPod := func(id string) bool { return r.isOfPod(id, uid) }
	pids, err := shims(r.opts.Address, ofPod)
	if err != nil || len(pids) == 0 {
		return err
	}
	busy, err := r.hasTask(ctx, uid)
	if err != nil || busy {
		return err
	}
	for _, pid := range pids {
		r.log.Info("ending a shim that was left", "pod", uid, "pid", pid)
		if err := killTree(pid, func(pid int) bool { return isShim(pid, r.opts.Address, ofPod) }); err != nil {
			return err
		}
	}
	return nil
}

// hasTask says whether a container of the pod that began has a task. Of one whose
// log was lost, which tells that, runc tells.
func (r *Runtime) hasTask(ctx context.Context, uid types.UID) (bool, error) {
	for _, rec := range r.ofPod(uid) {
		if rec.StartError != "" {
			continue
		}
		if !started(rec) {
			if r.unknownPID(rec, 0) != 0 && !r.runcWaits(rec.ID) {
				return true, nil
			}
			continue
		}
		if p, err := r.process(ctx, rec.ID); err != nil || p != nil {
			return true, err
		}
	}
	return false, nil
}

// killTree kills a process, if it is still the one that is meant, and then those
// that it started. Each is held by a descriptor from before it is looked at: its
// number cannot become another's.
func killTree(pid int, still func(pid int) bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !still(pid) {
		return nil
	}
	children := childrenOf(pid)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	for _, child := range children {
		same := func(pid int) bool {
			now, err := readProcess(pid)
			return err == nil && now.start == child.start
		}
		if err := killTree(child.pid, same); err != nil {
			return err
		}
	}
	return nil
}

// childrenOf lists the processes that a process started and that live. None when
// it is gone.
func childrenOf(pid int) []seenProcess {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	var children []seenProcess
	for _, t := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			continue // the thread ended
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			if p, err := readProcess(child); err == nil && p.parent == pid {
				children = append(children, p)
			}
		}
	}
	return children
}

// shimSocket is where the pod's shim listens.
func (r *Runtime) shimSocket(uid types.UID) string {
	sum := sha256.Sum256([]byte(filepath.Join(r.opts.Address, namespace, r.shimGroup(uid))))
	return filepath.Join(shimSockets, hex.EncodeToString(sum[:]))
}

// shimSockets is where containerd has its shims listen, wherever it has its state.
const shimSockets = "/run/containerd/s"
