package pod

import (
	"slices"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A view is the pod as both Next and Status read it.
type view struct {
	want  *corev1.Pod
	seen  Seen
	known Known
	now   time.Time

	attempts map[string][]Container // by container name, oldest first
	strays   []Container            // of no container in the spec
}

func look(want *corev1.Pod, seen Seen, known Known, now time.Time) *view {
	v := &view{want: want, seen: seen, known: known, now: now, attempts: map[string][]Container{}}
	names := map[string]bool{}
	for _, c := range v.specs() {
		names[c.Name] = true
	}
	for _, c := range seen.Containers {
		if names[c.Name] {
			v.attempts[c.Name] = append(v.attempts[c.Name], c)
		} else {
			v.strays = append(v.strays, c)
		}
	}
	for _, a := range v.attempts {
		sort.SliceStable(a, func(i, j int) bool { return a[i].Attempt < a[j].Attempt })
	}
	return v
}

// specs lists all containers of the spec, init containers first.
func (v *view) specs() []*corev1.Container {
	all := make([]*corev1.Container, 0, len(v.want.Spec.InitContainers)+len(v.want.Spec.Containers))
	for i := range v.want.Spec.InitContainers {
		all = append(all, &v.want.Spec.InitContainers[i])
	}
	for i := range v.want.Spec.Containers {
		all = append(all, &v.want.Spec.Containers[i])
	}
	return all
}

// sidecar says whether an init container runs beside the app containers.
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// newest is the newest attempt that got as far as a process, or failed to get
// one; nil when there is none.
func (v *view) newest(name string) *Container {
	a := v.attempts[name]
	for i := len(a) - 1; i >= 0; i-- {
		if a[i].State != ContainerCreated {
			return &a[i]
		}
	}
	return nil
}

// dead is the newest exited attempt older than c; nil when there is none.
func (v *view) dead(c *Container) *Container {
	a := v.attempts[c.Name]
	for i := len(a) - 1; i >= 0; i-- {
		if a[i].State == ContainerExited && a[i].Attempt < c.Attempt {
			return &a[i]
		}
	}
	return nil
}

// former says whether c ended with a sandbox that is no more: its machine went
// down. What runs belongs to the sandbox there is, whatever the clocks say.
func (v *view) former(c *Container) bool {
	switch {
	case c.State != ContainerExited:
		return false
	case !v.seen.Sandbox.Ready:
		return true
	case c.Sandbox.IsZero(): // an agent that did not keep it made the container
		return c.CreatedAt.Before(v.seen.Sandbox.CreatedAt)
	default:
		return !c.Sandbox.Equal(v.seen.Sandbox.CreatedAt)
	}
}

func (v *view) running() (alive []*Container) {
	for i := range v.seen.Containers {
		if c := &v.seen.Containers[i]; c.State == ContainerRunning {
			alive = append(alive, c)
		}
	}
	return alive
}

// A stage is where one container of the spec stands.
type stage int

const (
	waiting  stage = iota // for its turn: init containers before it are not through
	starting              // its next attempt is due
	backing               // its next attempt is due at outlook.due
	running
	done // exited, and stays so
)

// An outlook is what becomes of one container of the spec.
type outlook struct {
	stage   stage
	newest  *Container // nil: none was ever started
	attempt int        // of the next start
	level   int        // back-off level of the next start
	due     time.Time  // of the next start, when backing
}

// outlook answers for one container, not minding whose turn it is.
func (v *view) outlook(c *corev1.Container, init bool) outlook {
	n := v.newest(c.Name)
	switch {
	case n == nil:
		return outlook{stage: starting}
	case n.State == ContainerRunning:
		return outlook{stage: running, newest: n}
	case v.finished() || !v.restarts(c, init, n):
		return outlook{stage: done, newest: n}
	case v.former(n):
		return outlook{stage: starting, newest: n, attempt: n.Attempt + 1, level: 1}
	}
	o := outlook{stage: starting, newest: n, attempt: n.Attempt + 1, level: n.nextLevel()}
	if n.FinishedAt.After(v.now) {
		return o // the clock was set back: nobody knows how long ago that was
	}
	if o.due = n.FinishedAt.Add(restartPause(o.level)); v.now.Before(o.due) {
		o.stage = backing
	}
	return o
}

// restarts says whether another attempt follows the exited n.
func (v *view) restarts(c *corev1.Container, init bool, n *Container) bool {
	policy := v.want.Spec.RestartPolicy
	switch {
	case sidecar(c):
		return true
	case init && v.former(n):
		return true // a new sandbox is initialised anew
	case init && policy != corev1.RestartPolicyNever, policy == corev1.RestartPolicyOnFailure:
		return n.ExitCode != 0
	default:
		return policy != corev1.RestartPolicyNever
	}
}

// through says whether the init container c lets the next one begin.
func (v *view) through(c *corev1.Container) bool {
	n := v.newest(c.Name)
	if sidecar(c) {
		return n != nil && n.State == ContainerRunning && v.started(c, n)
	}
	return n != nil && n.State == ContainerExited && n.ExitCode == 0 && !v.former(n)
}

// initialized says whether the app containers may run: every init container is
// through, or an app container of this sandbox exists, which proves that they were.
func (v *view) initialized() bool {
	for i := range v.want.Spec.Containers {
		if n := v.newest(v.want.Spec.Containers[i].Name); n != nil && !v.former(n) {
			return true
		}
	}
	return !slices.ContainsFunc(v.want.Spec.InitContainers, func(c corev1.Container) bool { return !v.through(&c) })
}

// started says whether the running n of c is past its postStart hook and its startup.
func (v *view) started(c *corev1.Container, n *Container) bool {
	if n.State != ContainerRunning || !v.postStarted(c, n) {
		return false
	}
	p := v.known.Containers[c.Name].Probes
	return c.StartupProbe == nil || p.ID == n.ID && p.Started
}

// ready says whether the running n of c serves. A probe that has not spoken yet
// means no.
func (v *view) ready(c *corev1.Container, n *Container) bool {
	if !v.started(c, n) {
		return false
	}
	p := v.known.Containers[c.Name].Probes
	return c.ReadinessProbe == nil || p.ID == n.ID && p.Ready
}

// finished says whether the pod has come to its end: what it was meant to do is
// done, or failed for good. It never leaves that state.
func (v *view) finished() bool {
	return terminal(v.known.Previous.Phase) || v.evicted() || v.expired() || v.lost() || v.ended()
}

// ended says whether every app container has exited for good, or an init
// container did without success.
func (v *view) ended() bool {
	if v.appsDone() {
		return true
	}
	if !v.initialized() {
		return slices.ContainsFunc(v.want.Spec.InitContainers, func(c corev1.Container) bool {
			n := v.newest(c.Name)
			return n != nil && n.State == ContainerExited && n.ExitCode != 0 && !v.restarts(&c, true, n)
		})
	}
	return false
}

// appsDone says whether every app container has exited for good. It is so whatever
// became of its sandbox, and of the init containers with it.
func (v *view) appsDone() bool {
	return !slices.ContainsFunc(v.want.Spec.Containers, func(c corev1.Container) bool {
		n := v.newest(c.Name)
		return n == nil || n.State != ContainerExited || v.restarts(&c, false, n)
	})
}

func terminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// lost says whether the sandbox went away under a pod that is never restarted.
func (v *view) lost() bool {
	if v.seen.Sandbox.Ready || v.want.Spec.RestartPolicy != corev1.RestartPolicyNever {
		return false
	}
	return slices.ContainsFunc(v.seen.Containers, func(c Container) bool { return c.State == ContainerExited })
}

// ReasonDeadline is the pod's reason when activeDeadlineSeconds have passed.
const ReasonDeadline = "DeadlineExceeded"

// expired says whether activeDeadlineSeconds have passed before the pod came to
// its end by itself; nobody may have looked when it did.
func (v *view) expired() bool {
	if v.known.Previous.Reason == ReasonDeadline {
		return true
	}
	d := v.deadline()
	return !d.IsZero() && !v.now.Before(d) && !v.endedBefore(d)
}

func (v *view) endedBefore(d time.Time) bool {
	return v.ended() && !slices.ContainsFunc(v.want.Spec.Containers, func(c corev1.Container) bool {
		n := v.newest(c.Name)
		return n != nil && !n.FinishedAt.Before(d)
	})
}

// deadline is when activeDeadlineSeconds pass; zero when there are none.
func (v *view) deadline() time.Time {
	if s := v.want.Spec.ActiveDeadlineSeconds; s != nil {
		return v.startTime().Add(span(*s))
	}
	return time.Time{}
}

// startTime is when the node took the pod up: as it was first reported, else as
// the oldest thing made for it says, else now.
func (v *view) startTime() time.Time {
	if t := v.known.Previous.StartTime; t != nil && !t.IsZero() {
		return t.Time
	}
	first := v.seen.Sandbox.CreatedAt
	for _, c := range v.seen.Containers {
		if !c.CreatedAt.IsZero() && (first.IsZero() || c.CreatedAt.Before(first)) {
			first = c.CreatedAt
		}
	}
	if first.IsZero() {
		return v.now
	}
	return first
}
