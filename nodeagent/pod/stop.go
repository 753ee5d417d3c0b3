package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// killAgain is how long a killed process may take to go before it is killed
// once more: it may be stuck in the kernel, or the signal was lost.
const killAgain = 10 * time.Second

// leastGrace is what a container gets to stop after its stop signal, even when
// its preStop hook, or those it had to wait for, used up the grace period.
const leastGrace = 2 * time.Second

// slowStop is after which time it is worth writing down that a container was
// sent its stop signal.
const slowStop = time.Second

// gracePeriod is how long the pod's containers may take to stop.
func gracePeriod(p *corev1.Pod) time.Duration {
	s := int64(30)
	switch {
	case p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil:
		s = *p.DeletionGracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		s = *p.Spec.TerminationGracePeriodSeconds
	}
	return span(s)
}

// unwell says whether a running container is to be stopped so that it can be
// restarted, and within which time: its postStart hook failed, or its liveness
// or startup probe gave it up, which may have a grace period of its own. An agent
// that was restarted meanwhile tells from how far the container had come.
func (d *decision) unwell(e entry) (grace time.Duration, yes bool) {
	n, note := e.newest, d.known.Containers[e.Name]
	if n.StopRequested.IsZero() && d.hooks(n).PostStart != HookFailed &&
		(note.Probes.ID != n.ID || note.Probes.Unhealthy == "") {
		return 0, false
	}
	probe := e.LivenessProbe
	if e.StartupProbe != nil && !(note.Probes.ID == n.ID && note.Probes.Started) {
		probe = e.StartupProbe
	}
	if !d.postStarted(e.Container, n) || probe == nil || probe.TerminationGracePeriodSeconds == nil {
		return gracePeriod(d.want), true
	}
	return span(*probe.TerminationGracePeriodSeconds), true
}

// remove takes the pod away: stop, kill, then delete container by container,
// and at last what they shared. Nothing is removed before all have exited, so
// that the exits are seen and reported.
func (d *decision) remove() {
	d.step.Gone = d.clear(gracePeriod(d.want))
}

// clear takes away everything that there is of the pod, one step; true: nothing
// is left.
func (d *decision) clear(grace time.Duration) (done bool) {
	if d.stopAll(grace) || d.waits(d.known.Removal) {
		return false
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
		return true
	}
	return false
}

// stopAll stops what runs and says whether anything still does. All preStop
// hooks begin at once, as in Kubernetes; the stop signals come in order: first
// all but the sidecars, then one sidecar after the other, the last of the spec
// first.
func (d *decision) stopAll(grace time.Duration) bool {
	alive := d.running()
	rank := map[string]int{} // who stops later has more
	for i := range d.want.Spec.InitContainers {
		if c := &d.want.Spec.InitContainers[i]; sidecar(c) {
			rank[c.Name] = len(d.want.Spec.InitContainers) - i
		}
	}
	turn := len(rank) + len(d.want.Spec.InitContainers)
	for _, c := range alive {
		turn = min(turn, rank[c.Name])
	}
	begun := d.stopBegun(grace)
	for _, c := range alive {
		s := stopping{grace: grace, begun: c.StopRequested, turn: rank[c.Name] <= turn}
		if rank[c.Name] > 0 {
			s.begun = begun
		}
		d.stop(c, s)
	}
	return len(alive) > 0
}

// stopBegun is when the pod's stop began: with the first container that was
// asked to. Sidecars, which stop after the others, have what those left of the
// grace period. A container that ended before, asked to because its liveness
// probe had failed, was not part of this stop.
func (d *decision) stopBegun(grace time.Duration) (first time.Time) {
	for i := range d.seen.Containers {
		c := &d.seen.Containers[i]
		at := c.StopRequested
		if at.IsZero() || c.State != ContainerRunning && d.stoppedBefore(c, grace) {
			continue
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// stoppedBefore says whether an exited container that had been asked to stop
// cannot have been in the stop of the pod that goes on.
func (d *decision) stoppedBefore(c *Container, grace time.Duration) bool {
	longest := grace + killAgain + time.Duration(len(d.want.Spec.InitContainers)+1)*leastGrace
	deleted := d.want.DeletionTimestamp
	switch n := d.newest(c.Name); {
	case n != nil && n.ID != c.ID, d.now.Sub(c.StopRequested) > longest:
		return true
	default: // the timestamp has whole seconds
		return deleted != nil && c.StopRequested.Before(deleted.Add(-time.Second))
	}
}

// A stopping is how a container is stopped.
type stopping struct {
	grace time.Duration
	begun time.Time // when the grace period began; zero: it begins now
	turn  bool      // its stop signal may be sent; only its preStop hook before
}

// stop asks a running container to stop, and kills it when the grace period is
// over. The runtime keeps when it began, and what was done since.
func (d *decision) stop(c *Container, s stopping) {
	if s.grace == 0 {
		d.kill(c)
		return
	}
	if s.begun.IsZero() {
		s.begun = d.now
	}
	end := s.begun.Add(s.grace)
	if !d.preStop(c, end) || !s.turn {
		return
	}
	sent := c.Signalled
	if h := d.hooks(c); sent.IsZero() {
		sent = h.Signalled
	}
	if sent.IsZero() {
		switch failure := d.known.Containers[c.Name].Stop; {
		case d.waits(failure):
		case failure.Count > 0 && !d.now.Before(end.Add(leastGrace)):
			d.kill(c) // it could not be asked
		default:
			d.do(Signal{Container: c.Name, ID: c.ID})
		}
		return
	}
	if least := sent.Add(leastGrace); end.Before(least) && d.delayed(c) {
		end = least
	}
	if !d.now.Before(end) {
		d.kill(c)
		return
	}
	d.recheck(end)
	d.keepSignalled(c, sent)
}

// delayed says whether a container's stop signal may have had to wait, for its
// preStop hook or for others.
func (v *view) delayed(c *Container) bool {
	spec := v.spec(c.Name)
	return spec != nil && (sidecar(spec) || spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil)
}

// keepSignalled has the stop signal marked as sent, if the container is still
// there after a moment: most are not. An agent that finds no mark cannot know
// whether the one before it came to send it, and sends it again.
func (d *decision) keepSignalled(c *Container, sent time.Time) {
	if !c.Signalled.IsZero() || d.waits(d.known.Containers[c.Name].Stop) {
		return
	}
	if at := sent.Add(slowStop); d.now.Before(at) {
		d.recheck(at)
		return
	}
	d.do(Keep{Container: c.Name, ID: c.ID, Mark: MarkSignalled, At: sent})
}

// kill ends a running container.
func (d *decision) kill(c *Container) {
	note := d.known.Containers[c.Name]
	if again := note.KilledAt.Add(killAgain); note.KilledID == c.ID && d.now.Before(again) {
		d.recheck(again)
		return
	}
	if !d.waits(note.Stop) {
		d.do(Signal{Container: c.Name, ID: c.ID, Kill: true})
	}
}
