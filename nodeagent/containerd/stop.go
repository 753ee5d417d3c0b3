package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// Signal sends a signal to a container's main process. The first signal that is
// not KILL is recorded before it is sent: the grace period counts from there,
// whoever counts it.
func (r *Runtime) Signal(ctx context.Context, id string, stop string, at time.Time) error {
	rec, unlock, err := r.lockRecord(ctx, id)
	if err != nil || rec == nil {
		return err
	}
	defer unlock()
	if stop == "" {
		stop = rec.stopSignal
	}
	number, err := signalNumber(stop)
	if err != nil {
		if stop != rec.stopSignal {
			return err
		}
		r.log.Warn("the image names no known stop signal; TERM is sent", "container", id, "signal", stop)
		number = unix.SIGTERM
	}
	// A kill is not held up by a disk without room: it may be what makes room.
	if rec.StopRequested.IsZero() && number != unix.SIGKILL {
		err := r.setLabels(ctx, id, map[string]string{labelStopRequested: stamp(at)}, func(rec *record) { rec.StopRequested = at })
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return r.send(ctx, *rec, number)
}

// send signals the main process. That takes runc 10 ms and the kernel none, so
// it is asked directly where it comes to the same: the end of the first process
// of a PID namespace ends them all, but without one of its own (of a pod in the
// host's, or whose containers share one) runc finds the others.
func (r *Runtime) send(ctx context.Context, rec record, number unix.Signal) error {
	p, err := r.process(ctx, rec.ID)
	if err != nil || p == nil || p.Status == task.Status_STOPPED {
		return err
	}
	if !r.sharedPID(rec.uid) && signalProcess(int(p.Pid), rec.ID, number) {
		return nil
	}
	_, err = r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: rec.ID, Signal: uint32(number), All: number == unix.SIGKILL})
	if err = errgrpc.ToNative(err); err == nil || finished(err) {
		return nil
	}
	return unavailable("signal container "+rec.ID, err)
}

// signalProcess signals a process if it is the container's; false when it is
// not, or is gone. The descriptor keeps its number from being given away between
// the question and the signal.
func signalProcess(pid int, id string, number unix.Signal) bool {
	if pid <= 1 {
		return false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return alive(pid, id) && unix.PidfdSendSignal(fd, number, nil, 0) == nil
}

// sharedPID says whether the pod's containers have no PID namespaces of their
// own, or may have none: its sandbox is gone.
func (r *Runtime) sharedPID(uid types.UID) bool {
	s, err := r.sandbox(uid)
	return err != nil || s == nil || s.HostPID || s.SharePID
}

// signalNumber reads TERM, SIGTERM or 15, and real-time signals as RTMIN+3.
func signalNumber(name string) (unix.Signal, error) {
	if name == "" {
		return unix.SIGTERM, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return unix.Signal(n), nil
	}
	upper := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if n := unix.SignalNum("SIG" + upper); n != 0 {
		return n, nil
	}
	const rtmin, rtmax = 34, 64 // as the C library counts
	if rest, ok := strings.CutPrefix(upper, "RTMIN"); ok {
		if n, err := strconv.Atoi("0" + strings.TrimPrefix(rest, "+")); err == nil && rtmin+n <= rtmax {
			return unix.Signal(rtmin + n), nil
		}
	}
	if rest, ok := strings.CutPrefix(upper, "RTMAX"); ok {
		if n, err := strconv.Atoi("0" + strings.TrimPrefix(rest, "-")); err == nil && rtmax-n >= rtmin {
			return unix.Signal(rtmax - n), nil
		}
	}
	return 0, fmt.Errorf("signal %q is not known: %w", name, schema.ErrRefused)
}

// Remove deletes a container that does not run.
func (r *Runtime) Remove(ctx context.Context, id string, withLog bool) error {
	rec, ok, err := r.record(ctx, id)
	if err != nil || !ok {
		return err
	}
	unlock, err := r.locks.lock(ctx, rec.uid)
	if err != nil {
		return err
	}
	defer unlock()
	if rec, ok, err = r.record(ctx, id); err != nil || !ok {
		return err
	}
	c, err := r.state(ctx, rec)
	if err != nil {
		return err
	}
	if c.State == pod.ContainerRunning {
		return fmt.Errorf("remove container %s: it runs: %w", id, schema.ErrUnavailable)
	}
	return r.remove(ctx, rec, withLog)
}

// remove takes a container apart in the order in which it was put together,
// backwards: whatever cuts it off, the record is there until the rest is gone.
func (r *Runtime) remove(ctx context.Context, rec record, withLog bool) error {
	end := r.endTask
	if rec.StartError == "" && !started(rec) { // its log, which is removed here, tells
		end = r.endCutOff
	}
	if err := end(ctx, rec); err != nil {
		return err
	}
	r.drained(rec.ID)
	if err := r.removeFIFOs(rec.uid, rec.ID); err != nil {
		return err
	}
	if err := errors.Join(r.unmap(rec.uid, rec.ID), os.RemoveAll(r.volumesDir(rec.ID))); err != nil {
		return err
	}
	if err := r.client.SnapshotService(r.opts.Snapshotter).Remove(ctx, rec.ID); err != nil && !gone(err) {
		return unavailable("remove the file system of container "+rec.ID, err)
	}
	if withLog {
		if err := errors.Join(removeMessage(rec.LogPath), removeLog(rec.LogPath)); err != nil {
			return err
		}
	}
	if err := r.client.ContainerService().Delete(ctx, rec.ID); err != nil && !gone(err) {
		return unavailable("delete container "+rec.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(rec.ID)
	return nil
}

// endTask deletes a container's task, or ends what containerd has forgotten of it.
func (r *Runtime) endTask(ctx context.Context, rec record) error {
	if err := r.deleteTask(ctx, rec.ID); err != nil {
		return err
	}
	return r.endOrphan(ctx, rec)
}

// deleteTask deletes a container's task, and kills a process that is still in it.
func (r *Runtime) deleteTask(ctx context.Context, id string) error {
	for tries := 0; ; tries++ {
		_, err := r.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
		switch err = errgrpc.ToNative(err); {
		case err == nil, gone(err):
			return nil
		case shimClosed(err) && tries < 5:
			// Its shim ended with another container of the pod.
		case notStopped(err) && tries < 5:
			if err := r.killTask(ctx, id); err != nil {
				return err
			}
		default:
			return unavailable("delete the task of container "+id, err)
		}
	}
}

// notStopped says whether a task is not deleted because it runs. A shim that was
// cut off from containerd while it started the task hands on runc's words, which
// containerd cannot class.
func notStopped(err error) bool {
	return errdefs.IsFailedPrecondition(err) || strings.Contains(err.Error(), "that is not stopped")
}

// killTask kills what is in a task and waits for its end.
func (r *Runtime) killTask(ctx context.Context, id string) error {
	_, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL), All: true})
	if err = errgrpc.ToNative(err); err != nil && !finished(err) {
		return unavailable("kill container "+id, err)
	}
	ctx, cancel := context.WithTimeout(ctx, cleanupWithin)
	defer cancel()
	_, err = r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err != nil && !finished(err) {
		return unavailable("wait for the end of container "+id, err)
	}
	return nil
}

// finished says whether a signal came too late: the process ended by itself.
func finished(err error) bool {
	return gone(err) || shimClosed(err) || strings.Contains(err.Error(), "process already finished")
}
