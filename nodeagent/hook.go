package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// A hookKey names a hook that runs.
type hookKey struct {
	id      string // of the container
	preStop bool
}

// errNoHook: tcpSocket is a hook that the API accepts and that does not work, by
// Kubernetes' own word.
var errNoHook = fmt.Errorf("a lifecycle hook must be exec, httpGet or sleep: %w", schema.ErrRefused)

// runHook does what a hook says, until ctx is done. As in Kubernetes any answer
// to an httpGet is a success.
func (a *agent) runHook(ctx context.Context, t probeTarget, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		exec, ok := a.cfg.Runtime.(Execer)
		if !ok {
			return fmt.Errorf("commands are not supported by this runtime: %w", schema.ErrRefused)
		}
		return hookExec(ctx, exec, t, h.Exec)
	case h.HTTPGet != nil:
		return hookHTTP(ctx, t, h.HTTPGet)
	case h.Sleep != nil:
		wait(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		return ctx.Err()
	default:
		return errNoHook
	}
}

func hookExec(ctx context.Context, exec Execer, t probeTarget, a *corev1.ExecAction) error {
	code, output, err := exec.Exec(ctx, t.id, a.Command)
	if err == nil && code != 0 {
		err = fmt.Errorf("command exited with %d: %s", code, strings.TrimSpace(string(output)))
	}
	return err
}

// postStart runs a container's hook beside the loop.
func (w *worker) postStart(beside context.Context, want *corev1.Pod, seen pod.Seen, act pod.PostStart) bool {
	w.setHooks(act.Container, act.ID, func(h *pod.Hooks) { h.PostStart = pod.HookRunning })
	ctx, cancel := context.WithCancel(beside)
	handler := container(want, act.Container).Lifecycle.PostStart
	w.beginHook(ctx, cancel, hookKey{act.ID, false}, w.target(want, seen, act.Container, act.ID), handler, func(err error) {
		if err == nil {
			w.mark(beside, act.Container, act.ID, pod.MarkPostStarted)
		} else {
			w.warn(act.Container, "FailedPostStartHook", "PostStartHook failed")
			w.log.Warn("postStart hook failed", "container", act.Container, "err", err)
		}
		w.setHooks(act.Container, act.ID, func(h *pod.Hooks) {
			if h.PostStart = pod.HookDone; err != nil {
				h.PostStart = pod.HookFailed
			}
		})
	})
	return true
}

// preStop notes that the container is being stopped and runs its hook beside the
// loop.
func (w *worker) preStop(ctx, beside context.Context, want *corev1.Pod, seen pod.Seen, act pod.PreStop) {
	if !w.noteStop(act.Container, act, w.a.cfg.Runtime.Mark(ctx, act.ID, pod.MarkStopRequested, time.Now())) {
		return
	}
	w.endHook(hookKey{act.ID, false})
	w.setHooks(act.Container, act.ID, func(h *pod.Hooks) { h.PreStop = pod.HookRunning })
	limited, cancel := context.WithDeadline(beside, act.Until)
	handler := container(want, act.Container).Lifecycle.PreStop
	w.beginHook(limited, cancel, hookKey{act.ID, true}, w.target(want, seen, act.Container, act.ID), handler, func(err error) {
		if err != nil {
			w.warn(act.Container, "FailedPreStopHook", "PreStopHook failed")
			w.log.Warn("preStop hook failed", "container", act.Container, "err", err)
		}
		w.mark(beside, act.Container, act.ID, pod.MarkPreStopped)
		w.setHooks(act.Container, act.ID, func(h *pod.Hooks) { h.PreStop = pod.HookDone })
	})
}

// beginHook runs a hook beside the loop and has the loop call done with how it
// ended, unless it was called off.
func (w *worker) beginHook(ctx context.Context, cancel context.CancelFunc, key hookKey, t probeTarget, h *corev1.LifecycleHandler, done func(error)) {
	w.hooks[key] = cancel
	w.beside.Go(func() {
		defer cancel()
		err := w.a.runHook(ctx, t, h)
		if errors.Is(ctx.Err(), context.Canceled) {
			return
		}
		w.post(func(w *worker) {
			if w.hooks[key] == nil {
				return
			}
			delete(w.hooks, key)
			done(err)
		})
	})
}

// mark has the runtime keep how far a container is. What it cannot keep now only
// this run of the agent knows; the next does the hook again.
func (w *worker) mark(ctx context.Context, name, id string, m pod.Mark) {
	ctx, cancel := call(ctx)
	defer cancel()
	if err := w.a.cfg.Runtime.Mark(ctx, id, m, time.Now()); err != nil && !errors.Is(err, schema.ErrNotFound) {
		w.log.Warn("cannot keep how far a hook is", "container", name, "mark", string(m), "err", err)
	}
}

func (w *worker) setHooks(name, id string, f func(*pod.Hooks)) {
	note := w.known.Containers[name]
	if note.Hooks.ID != id {
		note.Hooks = pod.Hooks{ID: id}
	}
	f(&note.Hooks)
	w.known.Containers[name] = note
}

// watchHooks calls off the hooks of what does not run any more.
func (w *worker) watchHooks(seen pod.Seen) {
	if len(w.hooks) == 0 {
		return
	}
	alive := map[string]bool{}
	for i := range seen.Containers {
		alive[seen.Containers[i].ID] = seen.Containers[i].State == pod.ContainerRunning
	}
	for key := range w.hooks {
		if !alive[key.id] {
			w.endHook(key)
		}
	}
}

func (w *worker) endHook(key hookKey) {
	if stop := w.hooks[key]; stop != nil {
		stop()
		delete(w.hooks, key)
	}
}

// target is where a container's probes and hooks reach it.
func (w *worker) target(want *corev1.Pod, seen pod.Seen, name, id string) probeTarget {
	ip := seen.Sandbox.IP
	if want.Spec.HostNetwork {
		ip = w.known.HostIP
	}
	return probeTarget{ip: ip, id: id, container: container(want, name)}
}
