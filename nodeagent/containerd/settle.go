package containerd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// settleAfter is how long an exit waits to be written down. Mostly the container
// is removed or started again before; until then its task tells of it, which the
// shim keeps.
const settleAfter = 3 * time.Second

// settleMost is the longest pause before it is tried again: nobody else does.
const settleMost = 5 * time.Minute

// settleLater writes a container's exit into its labels, so that it is known
// also when its shim or the machine dies; and when nothing of the pod runs any
// more, it lets the shim go. It may be called for one container several times.
func (r *Runtime) settleLater(id string) {
	r.workers.Go(func() {
		for pause := settleAfter; wait(r.life, pause); pause = min(2*pause, settleMost) {
			ctx, cancel := context.WithTimeout(r.life, cleanupWithin)
			err := r.settle(ctx, id)
			cancel()
			if err == nil || r.life.Err() != nil {
				return
			}
			r.log.Warn("an exit is not written down yet", "container", id, "err", err)
		}
	})
}

func (r *Runtime) settle(ctx context.Context, id string) error {
	rec, ok, err := r.record(ctx, id)
	if err != nil || !ok || rec.settled {
		return err
	}
	unlock, err := r.locks.lock(ctx, rec.uid)
	if err != nil {
		return err
	}
	defer unlock()
	if rec, ok, err = r.record(ctx, id); err != nil || !ok || rec.settled {
		return err
	}
	c, err := r.state(ctx, rec)
	if err != nil || c.State != pod.ContainerExited || c.StartError != "" {
		return err
	}
	if err := r.writeExit(ctx, c); err != nil {
		return err
	}
	return r.freeShim(ctx, rec.uid)
}

func (r *Runtime) writeExit(ctx context.Context, c pod.Container) error {
	labels := map[string]string{
		labelExitCode: strconv.Itoa(int(c.ExitCode)), labelFinished: stamp(c.FinishedAt), labelStarted: stamp(c.StartedAt),
	}
	if c.OOMKilled {
		labels[labelOOMKilled] = "true"
	}
	err := r.setLabels(ctx, c.ID, labels, func(rec *record) { rec.settled = true })
	if gone(err) {
		return nil
	}
	return err
}

// freeShim deletes the tasks of a pod all of whose containers have ended: their
// shim, some 12 MiB, ends with them.
func (r *Runtime) freeShim(ctx context.Context, uid types.UID) error {
	all := r.ofPod(uid)
	for _, rec := range all {
		if !rec.settled && rec.StartError == "" {
			return nil // one runs, or its end is written down next
		}
	}
	for _, rec := range all {
		if err := r.deleteTask(ctx, rec.ID); err != nil {
			return err
		}
	}
	return nil
}

// startedAt is when a container's process began: as we saw it, as the kernel
// tells of a process that lives, or about when the container was made.
func startedAt(rec record, pid int) time.Time {
	if !rec.StartedAt.IsZero() {
		return rec.StartedAt
	}
	if pid > 0 {
		if t, err := processStart(pid); err == nil && t.After(rec.CreatedAt) {
			return t
		}
	}
	return rec.CreatedAt
}

// clockTicks per second in /proc/<pid>/stat; the kernel's ABI fixes it.
const clockTicks = 100

// maxAge is more than any process has lived.
const maxAge = 100 * 365 * 24 * time.Hour

// processStart reads when a process began, to 10 ms.
func processStart(pid int) (time.Time, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, err
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, err
	}
	age, err := processAge(string(stat), string(uptime))
	if err != nil {
		return time.Time{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return time.Now().Add(-age), nil
}

// processAge reads how long ago a process began from its /proc/<pid>/stat and
// /proc/uptime.
func processAge(stat, uptime string) (time.Duration, error) {
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("stat has %d fields", len(fields))
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return 0, err
	}
	up, _, _ := strings.Cut(uptime, " ")
	seconds, err := strconv.ParseFloat(up, 64)
	if err != nil {
		return 0, err
	}
	age := seconds - float64(ticks)/clockTicks
	if !(age > -1 && age < maxAge.Seconds()) { // nor is it one that is no number
		return 0, fmt.Errorf("began %s ticks after a start of the machine %s s ago", fields[19], up)
	}
	return time.Duration(max(0, age) * float64(time.Second)), nil
}
