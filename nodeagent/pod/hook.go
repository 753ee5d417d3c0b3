package pod

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A container's hooks run at its two ends. After its start comes postStart:
// before it has succeeded the container counts as not running, and its failure
// stops it. Before its stop signal comes preStop, within the grace period, which
// begins with it.
//
// An agent that is killed runs postStart again unless it is known to have
// succeeded, and preStop unless it is known to have ended; Kubernetes promises
// no less, and no more.

// A Mark is a moment in a container's life that the runtime keeps with the
// container, so that it outlives the agent.
type Mark string

// The marks, each with the field of Container that holds its time.
const (
	MarkStopRequested Mark = "stop-requested" // StopRequested
	MarkPostStarted   Mark = "post-started"   // PostStarted
	MarkPreStopped    Mark = "pre-stopped"    // PreStopped
	MarkSignalled     Mark = "signalled"      // Signalled
)

// Set sets the field that holds the mark's time.
func (c *Container) Set(m Mark, at time.Time) {
	switch m {
	case MarkStopRequested:
		c.StopRequested = at
	case MarkPostStarted:
		c.PostStarted = at
	case MarkPreStopped:
		c.PreStopped = at
	case MarkSignalled:
		c.Signalled = at
	}
}

// A HookState is how far this run of the agent is with a hook.
type HookState int

// The states of a hook. A preStop hook that ended counts as done, however.
const (
	HookIdle HookState = iota
	HookRunning
	HookDone
	HookFailed
)

// Hooks is what this run of the agent did at the ends of the container ID; it
// says nothing of another one.
type Hooks struct {
	ID        string
	PostStart HookState
	PreStop   HookState
	Signalled time.Time // when its stop signal was sent; zero: it was not
}

// PostStart runs the container's postStart hook, beside the others.
type PostStart struct{ Container, ID string }

// PreStop marks the container as asked to stop and runs its preStop hook, beside
// the others, until Until at the latest.
type PreStop struct {
	Container, ID string
	Until         time.Time
}

// Keep has the runtime keep a mark.
type Keep struct {
	Container, ID string
	Mark          Mark
	At            time.Time
}

func (PostStart) action() {}
func (PreStop) action()   {}
func (Keep) action()      {}

func (a PostStart) String() string { return "postStart " + a.Container }
func (a PreStop) String() string   { return "preStop " + a.Container }
func (a Keep) String() string      { return fmt.Sprintf("mark %s %s", a.Container, a.Mark) }

// PostStarted says whether nothing of c's postStart hook is left to do for its
// attempt n.
func PostStarted(c *corev1.Container, n *Container, h Hooks) bool {
	return c.Lifecycle == nil || c.Lifecycle.PostStart == nil ||
		!n.PostStarted.IsZero() || h.ID == n.ID && h.PostStart == HookDone
}

// hooks is what this run of the agent did at the ends of n.
func (v *view) hooks(n *Container) Hooks {
	if h := v.known.Containers[n.Name].Hooks; h.ID == n.ID {
		return h
	}
	return Hooks{}
}

func (v *view) postStarted(c *corev1.Container, n *Container) bool {
	return PostStarted(c, n, v.hooks(n))
}

// postStart runs the hook of a container that runs, once.
func (d *decision) postStart(e entry) {
	if !d.postStarted(e.Container, e.newest) && d.hooks(e.newest).PostStart == HookIdle {
		d.do(PostStart{Container: e.Name, ID: e.newest.ID})
	}
}

// holds says whether the app containers after e in the spec are not started yet:
// as in Kubernetes, each waits for the postStart hooks of those before it.
func (d *decision) holds(e entry) bool {
	if e.init || e.Lifecycle == nil || e.Lifecycle.PostStart == nil {
		return false
	}
	note := d.known.Containers[e.Name]
	switch e.stage {
	case starting:
		return !note.Start.holds(d.now) && !note.Image.Failure.holds(d.now)
	case running:
		_, unwell := d.unwell(e)
		return !unwell && !d.postStarted(e.Container, e.newest)
	default:
		return false
	}
}

// preStop runs the container's hook if there is one, until end at the latest,
// and says whether it is over.
func (d *decision) preStop(c *Container, end time.Time) bool {
	spec := d.spec(c.Name)
	h := d.hooks(c)
	switch {
	case spec == nil || spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil,
		!c.PreStopped.IsZero(), h.PreStop == HookDone, !d.now.Before(end):
		return true
	case h.PreStop == HookRunning:
		d.recheck(end)
	case !d.waits(d.known.Containers[c.Name].Stop):
		d.do(PreStop{Container: c.Name, ID: c.ID, Until: end})
	}
	return false
}

// spec is the container of that name in the spec; nil for a stray.
func (v *view) spec(name string) *corev1.Container {
	for _, c := range v.specs() {
		if c.Name == name {
			return c
		}
	}
	return nil
}
