package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// killAgain is how long a killed process may take to go before it is killed
// once more: it may be stuck in the kernel, or the signal was lost.
const killAgain = 10 * time.Second

// sidecarGrace is what a sidecar gets to stop even when the app containers used
// up the pod's grace period.
const sidecarGrace = 2 * time.Second

// gracePeriod is how long the pod's containers may take to stop.
func gracePeriod(p *corev1.Pod) time.Duration {
	s := int64(30)
	switch {
	case p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil:
		s = *p.DeletionGracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		s = *p.Spec.TerminationGracePeriodSeconds
	}
	return time.Duration(max(s, 0)) * time.Second
}

// probeGrace is how long a container may take to stop that its liveness or
// startup probe gave up.
func probeGrace(p *corev1.Pod, c *corev1.Container) time.Duration {
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.StartupProbe} {
		if probe != nil && probe.TerminationGracePeriodSeconds != nil {
			return time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
		}
	}
	return gracePeriod(p)
}

// remove takes the pod away: stop, kill, then delete container by container,
// and at last what they shared. Nothing is removed before all have exited, so
// that the exits are seen and reported.
func (d *decision) remove() {
	if d.stopAll(gracePeriod(d.want)) || d.waits(d.known.Removal) {
		return
	}
	for _, c := range d.seen.Containers {
		d.do(Remove{Container: c.Name, ID: c.ID, Attempt: c.Attempt})
	}
	switch {
	case len(d.seen.Containers) > 0:
	case !d.known.VolumesRemoved:
		d.do(RemoveVolumes{})
		d.do(RemoveSandbox{})
	case !d.known.SandboxRemoved || d.seen.Sandbox.Ready:
		d.do(RemoveSandbox{})
	default:
		d.step.Gone = true
	}
}

// stopAll stops what runs, sidecars after all others, and says whether
// anything still runs.
func (d *decision) stopAll(grace time.Duration) bool {
	alive := d.running()
	late := map[string]bool{}
	for i := range d.want.Spec.InitContainers {
		c := &d.want.Spec.InitContainers[i]
		late[c.Name] = sidecar(c)
	}
	early := false
	for _, c := range alive {
		if !late[c.Name] {
			early = true
			d.stop(c, grace)
		}
	}
	if early {
		return true
	}
	for _, c := range alive {
		d.stop(c, d.graceLeft(c, grace))
	}
	return len(alive) > 0
}

// graceLeft is what of the pod's grace period is left to a sidecar, counted from
// its own stop: the period began with the first container that was asked to stop.
func (d *decision) graceLeft(c *Container, grace time.Duration) time.Duration {
	own := d.now
	if !c.StopRequested.IsZero() {
		own = c.StopRequested
	}
	first := own
	for _, o := range d.seen.Containers {
		if !o.StopRequested.IsZero() && o.StopRequested.Before(first) {
			first = o.StopRequested
		}
	}
	return max(grace-own.Sub(first), min(grace, sidecarGrace))
}

// stop asks a running container to stop, and kills it when the grace period is
// over. The period is counted from StopRequested, which the runtime keeps.
func (d *decision) stop(c *Container, grace time.Duration) {
	if grace == 0 {
		d.kill(c)
		return
	}
	if c.StopRequested.IsZero() {
		if !d.waits(d.known.Removal) {
			d.do(Signal{Container: c.Name, ID: c.ID})
		}
		return
	}
	if end := c.StopRequested.Add(grace); d.now.Before(end) {
		d.recheck(end)
		return
	}
	d.kill(c)
}

// kill ends a running container.
func (d *decision) kill(c *Container) {
	note := d.known.Containers[c.Name]
	if again := note.KilledAt.Add(killAgain); note.KilledID == c.ID && d.now.Before(again) {
		d.recheck(again)
		return
	}
	if !d.waits(d.known.Removal) {
		d.do(Signal{Container: c.Name, ID: c.ID, Kill: true})
	}
}
