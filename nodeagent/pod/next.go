package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Next names what to do for the pod now, and when to ask again. want is the pod
// as assigned and complete (defaulted); its deletionTimestamp means: away with
// it. Equal arguments give equal answers.
func Next(want *corev1.Pod, seen Seen, known Known, now time.Time) Step {
	d := &decision{view: look(want, seen, known, now)}
	switch {
	case want.DeletionTimestamp != nil:
		d.remove()
	case d.evicted():
		d.evict()
	case d.finished():
		d.stopAll(gracePeriod(want))
		d.tidy()
	case !seen.Sandbox.Ready && len(d.running()) > 0:
		d.stopAll(gracePeriod(want)) // what is left of a sandbox that is no more
	default:
		d.run()
	}
	return d.step
}

// A decision is a Step in the making.
type decision struct {
	*view
	step Step
}

func (d *decision) do(a Action) { d.step.Actions = append(d.step.Actions, a) }

// recheck asks to be asked again at t, unless earlier anyway.
func (d *decision) recheck(t time.Time) {
	if d.step.Recheck.IsZero() || t.Before(d.step.Recheck) {
		d.step.Recheck = t
	}
}

// waits says whether f is a reason to wait, and sees to being asked again.
func (d *decision) waits(f Failure) bool {
	if f.holds(d.now) {
		d.recheck(f.RetryAt)
		return true
	}
	return false
}

// run brings the pod towards running. Images come first, as they take longest
// and are had beside the rest.
func (d *decision) run() {
	if at := d.deadline(); !at.IsZero() {
		d.recheck(at)
	}
	d.tidy()
	turn := d.turn()
	for _, c := range turn {
		d.pull(c)
	}
	if !d.seen.Sandbox.Ready && !d.waits(d.known.Sandbox) {
		d.do(CreateSandbox{})
	}
	if !d.known.VolumesReady && !d.waits(d.known.Volumes) {
		d.do(SetupVolumes{})
	}
	held := false
	for _, c := range turn {
		if c.stage != starting || !held {
			d.advance(c)
		}
		held = held || d.holds(c)
	}
}

// An entry is a container whose turn it is.
type entry struct {
	*corev1.Container
	outlook
	init bool
}

// turn lists the containers whose turn it is: the first init container that is
// not through, or all app containers; and in any case the sidecars before them.
func (d *decision) turn() (turn []entry) {
	add := func(c *corev1.Container, init bool) {
		turn = append(turn, entry{c, d.outlook(c, init), init})
	}
	initialized := d.initialized()
	for i := range d.want.Spec.InitContainers {
		c := &d.want.Spec.InitContainers[i]
		through := d.through(c)
		if sidecar(c) || !through && !initialized {
			add(c, true)
		}
		if !through && !initialized {
			return turn
		}
	}
	for i := range d.want.Spec.Containers {
		add(&d.want.Spec.Containers[i], false)
	}
	return turn
}

// pull asks for the image of an attempt that is due.
func (d *decision) pull(e entry) {
	note := d.known.Containers[e.Name]
	img := note.Image
	if e.stage != starting || d.waits(note.Start) || img.Attempt == e.attempt && (img.Ready || img.Pulling) || d.cutOff(e.Name) {
		return
	}
	if d.waits(img.Failure) {
		if at := img.Failure.At.Add(freshFailure); d.now.Before(at) {
			d.recheck(at) // ErrImagePull becomes ImagePullBackOff
		}
		return
	}
	d.do(PullImage{Container: e.Name, Attempt: e.attempt})
}

// advance takes a container one step on.
func (d *decision) advance(e entry) {
	note := d.known.Containers[e.Name]
	switch e.stage {
	case starting:
		present := note.Image.Ready && note.Image.Attempt == e.attempt
		if !present || !d.seen.Sandbox.Ready || !d.known.VolumesReady || d.cutOff(e.Name) || d.waits(note.Start) {
			return
		}
		d.do(Start{Container: e.Name, Attempt: e.attempt, Backoff: e.level})
	case backing:
		d.recheck(e.due)
		if at := e.newest.FinishedAt.Add(freshFailure); e.newest.StartError != "" && d.now.Before(at) {
			d.recheck(at) // RunContainerError becomes CrashLoopBackOff
		}
	case running:
		if grace, unwell := d.unwell(e); unwell {
			d.stop(e.newest, stopping{grace: grace, begun: e.newest.StopRequested, turn: true})
		} else {
			d.postStart(e)
		}
	}
}

// cutOff says whether an attempt of the container was cut off before it had a
// process: it is removed before the next.
func (d *decision) cutOff(name string) bool {
	for _, c := range d.attempts[name] {
		if c.State == ContainerCreated {
			return true
		}
	}
	return false
}

// tidy removes what is of no more use: attempts that were cut off, containers
// the spec does not name, and all dead attempts but the newest of each container,
// which is kept for its log. Two live attempts of one container must not be; if
// they are, the older one goes.
func (d *decision) tidy() {
	if d.waits(d.known.Removal) {
		return
	}
	for _, c := range d.strays {
		d.discard(c)
	}
	for _, spec := range d.specs() {
		dead := false
		a := d.attempts[spec.Name]
		for i := len(a) - 1; i >= 0; i-- {
			switch c := a[i]; {
			case c.State == ContainerCreated:
				d.discard(c)
			case c.State == ContainerRunning && d.newest(spec.Name).Attempt != c.Attempt:
				d.kill(&c)
			case c.State == ContainerExited && dead:
				d.discard(c)
			case c.State == ContainerExited:
				dead = true
			}
		}
	}
}

// discard removes a container, ending it first.
func (d *decision) discard(c Container) {
	if c.State == ContainerRunning {
		d.kill(&c)
		return
	}
	d.do(Remove{Container: c.Name, ID: c.ID, Attempt: c.Attempt})
}
