package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// A probeKind is one of a container's three probes.
type probeKind string

const (
	startup   probeKind = "Startup"
	readiness probeKind = "Readiness"
	liveness  probeKind = "Liveness"
)

// A probeKey names a running probe.
type probeKey struct {
	id   string // of the container
	kind probeKind
}

// recallProbes takes up what an earlier run of the agent found, until the probes
// say otherwise: a restarted agent must not take a serving pod out of service.
func (w *worker) recallProbes(last *corev1.PodStatus) {
	for _, list := range [][]corev1.ContainerStatus{last.InitContainerStatuses, last.ContainerStatuses} {
		for _, s := range list {
			if s.State.Running == nil {
				continue
			}
			note := w.known.Containers[s.Name]
			note.Probes = pod.Probes{ID: pod.ContainerID(s.ContainerID), Started: s.Started != nil && *s.Started, Ready: s.Ready}
			w.known.Containers[s.Name] = note
		}
	}
}

// watchProbes starts the probes of what runs and ends those of what does not.
func (w *worker) watchProbes(ctx context.Context, want *corev1.Pod, seen pod.Seen) {
	wanted := map[probeKey]bool{}
	for i := range seen.Containers {
		c := &seen.Containers[i]
		spec := container(want, c.Name)
		if c.State != pod.ContainerRunning || spec == nil {
			continue
		}
		note := w.known.Containers[c.Name]
		if note.Probes.ID != c.ID {
			note.Probes = pod.Probes{ID: c.ID}
			w.known.Containers[c.Name] = note
		}
		if !pod.PostStarted(spec, c, note.Hooks) {
			continue
		}
		for kind, p := range probesDue(want, spec, note.Probes, c) {
			key := probeKey{c.ID, kind}
			wanted[key] = true
			if w.probes[key] == nil {
				w.startProbe(ctx, key, w.target(want, seen, c.Name, c.ID), p, c.StartedAt)
			}
		}
	}
	for key, stop := range w.probes {
		if !wanted[key] {
			stop()
			delete(w.probes, key)
		}
	}
}

// probesDue lists the probes that should go on now: the startup probe until it
// succeeded, then the others. What is being stopped need not prove that it lives.
func probesDue(want *corev1.Pod, c *corev1.Container, found pod.Probes, seen *pod.Container) map[probeKind]*corev1.Probe {
	due := map[probeKind]*corev1.Probe{}
	stopping := want.DeletionTimestamp != nil || !seen.StopRequested.IsZero() || found.Unhealthy != ""
	switch {
	case c.StartupProbe != nil && !found.Started:
		if !stopping {
			due[startup] = c.StartupProbe
		}
		return due
	case c.LivenessProbe != nil && !stopping:
		due[liveness] = c.LivenessProbe
	}
	if c.ReadinessProbe != nil {
		due[readiness] = c.ReadinessProbe
	}
	return due
}

// startProbe begins a probe's own loop, which ends with the probe's context.
func (w *worker) startProbe(ctx context.Context, key probeKey, t probeTarget, p *corev1.Probe, startedAt time.Time) {
	ctx, w.probes[key] = context.WithCancel(ctx)
	w.beside.Go(func() {
		r := probeRun{w: w, key: key, target: t, probe: p}
		r.run(ctx, startedAt)
	})
}

// A probeRun is one probe of one running container.
type probeRun struct {
	w      *worker
	key    probeKey
	target probeTarget
	probe  *corev1.Probe

	count   int  // equal results in a row
	success bool // what they were
}

func (r *probeRun) run(ctx context.Context, startedAt time.Time) {
	first := startedAt.Add(time.Duration(r.probe.InitialDelaySeconds) * time.Second)
	period := seconds(r.probe.PeriodSeconds, 10)
	t := time.NewTimer(time.Until(first))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		asked := time.Now()
		err := r.once(ctx)
		if ctx.Err() != nil {
			return
		}
		r.tell(err)
		t.Reset(max(0, probePause(asked, period)-time.Since(asked)))
	}
}

// probesTogether is the grid on which probes are made after the first one of each:
// to wake up once for many of them costs half of the processor's time.
const probesTogether = 250 * time.Millisecond

// probePause is how long after now a probe is made again: its period, or once by
// less than probesTogether shorter. The clock by which the grid goes may be a
// little behind the timers while it is being set.
func probePause(now time.Time, period time.Duration) time.Duration {
	const behind = probesTogether / 10
	return now.Add(period + behind).Truncate(probesTogether).Sub(now)
}

func (r *probeRun) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(r.probe.TimeoutSeconds, 1))
	defer cancel()
	err := r.w.a.probe(ctx, r.target, r.probe)
	if err != nil && undecided(err) && ctx.Err() != nil {
		// What takes too long has failed, whatever held it up.
		return fmt.Errorf("timed out after %v: %s", seconds(r.probe.TimeoutSeconds, 1), err.Error())
	}
	return err
}

// tell counts a result and posts a verdict when its threshold is reached.
func (r *probeRun) tell(err error) {
	warning := probeWarning("")
	switch {
	case errors.As(err, &warning):
		r.w.warn(r.target.container.Name, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", r.key.kind, warning))
		err = nil
	case err != nil && undecided(err):
		r.w.warn(r.target.container.Name, "Unhealthy", fmt.Sprintf("%s probe errored and resulted in unknown state: %v", r.key.kind, err))
		return
	}
	if err != nil {
		r.w.warn(r.target.container.Name, "Unhealthy", fmt.Sprintf("%s probe failed: %v", r.key.kind, err))
	}
	if ok := err == nil; ok != r.success || r.count == 0 {
		r.success, r.count = ok, 0
	}
	r.count++
	need := r.probe.SuccessThreshold
	if err != nil {
		need = r.probe.FailureThreshold
		if need <= 0 {
			need = 3
		}
	}
	if r.count != int(max(need, 1)) {
		return
	}
	key, name := r.key, r.target.container.Name
	r.w.post(func(w *worker) { w.probed(key, name, err) })
}

// probed takes a probe's verdict.
func (w *worker) probed(key probeKey, name string, err error) {
	note := w.known.Containers[name]
	if note.Probes.ID != key.id {
		return // of an attempt that is no more
	}
	switch key.kind {
	case startup:
		note.Probes.Started = note.Probes.Started || err == nil
	case readiness:
		note.Probes.Ready = err == nil
	}
	if err != nil {
		w.log.Warn("probe failed", "container", name, "probe", string(key.kind), "err", err)
		if key.kind != readiness {
			note.Probes.Unhealthy = fmt.Sprintf("%s probe failed: %v", key.kind, err)
		}
	}
	w.known.Containers[name] = note
}
