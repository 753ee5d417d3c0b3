package plan

import (
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// limits says how many pods a rolling update may have above the replicas, and
// how many of them may be unavailable: percentages of the replicas, the first
// rounded up and the second down; if both come to nothing, one may be
// unavailable, or the update could not move.
func limits(d *appsv1.Deployment) (surge, unavailable int) {
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return 0, 0
	}
	want := int(ptr.Deref(d.Spec.Replicas, 1))
	quarter := intstr.FromString("25%")
	up, down := &quarter, &quarter
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		if r.MaxSurge != nil {
			up = r.MaxSurge
		}
		if r.MaxUnavailable != nil {
			down = r.MaxUnavailable
		}
	}
	surge, unavailable = scaled(up, want, true), scaled(down, want, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, want)
}

// scaled takes what is no number for nothing: the schema lets no such thing in.
func scaled(v *intstr.IntOrString, of int, up bool) int {
	n, err := intstr.GetScaledValueFromIntOrPercent(v, of, up)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// advance goes one step of the update and says whether there was one to go.
func (ro *rollout) advance() bool {
	for _, x := range ro.sets {
		x.meet()
	}
	switch {
	case ro.d.Spec.Paused || ro.new == nil:
		return false
	case ro.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return ro.recreate()
	default:
		return ro.grow() || ro.shrink()
	}
}

// recreate stops all old pods, and starts the new ones when they are gone.
func (ro *rollout) recreate() bool {
	stopped, busy := false, slices.ContainsFunc(ro.strangers, (*pod).takesRoom)
	for _, x := range ro.sets {
		if x == ro.new {
			continue
		}
		stopped = ro.resize(x, 0) || stopped
		busy = busy || len(x.pods) > 0 || x.ending() > 0
	}
	if stopped || busy {
		return stopped
	}
	return ro.resize(ro.new, ro.want)
}

// ending counts the set's pods that are on their way out and may still run.
func (x *set) ending() int {
	n := 0
	for _, p := range slices.Concat(x.leaving, x.rest) {
		if p.takesRoom() {
			n++
		}
	}
	return n
}

// grow makes the new set larger as far as the surge allows, or smaller when it
// is larger than all that is wanted.
func (ro *rollout) grow() bool {
	if ro.new.want > ro.want {
		return ro.resize(ro.new, ro.want)
	}
	room := ro.want + ro.surge - ro.total()
	if room <= 0 {
		return false
	}
	return ro.resize(ro.new, min(ro.new.want+room, ro.want))
}

// shrink makes old sets smaller: first by the pods that are not available, then
// by as many as are available beyond those that must be.
func (ro *rollout) shrink() bool {
	least := ro.want - ro.unavailable
	coming := ro.new.want - ro.available(ro.new)
	spare := ro.total() - least - coming
	if spare <= 0 {
		return false
	}
	done := false
	for _, x := range ro.oldest() {
		if x == ro.new || spare <= 0 {
			continue
		}
		n := min(spare, max(x.want-ro.available(x), 0))
		spare -= n
		done = ro.resize(x, x.want-n) || done
	}
	if done {
		return true
	}
	spare = -least
	for _, x := range ro.sets {
		spare += ro.available(x)
	}
	for _, x := range ro.oldest() {
		if x == ro.new || spare <= 0 {
			continue
		}
		n := min(spare, x.want)
		spare -= n
		done = ro.resize(x, x.want-n) || done
	}
	return done
}

// available counts the set's pods that are ready for long enough.
func (ro *rollout) available(x *set) int { return int(x.count().available) }

// total is the size of all sets.
func (ro *rollout) total() int {
	n := 0
	for _, x := range ro.sets {
		n += x.want
	}
	return n
}

// resize gives a set another size, and its pods with it.
func (ro *rollout) resize(x *set, to int) bool {
	to = max(to, 0)
	if x.want == to {
		return false
	}
	x.want = to
	x.meet()
	return true
}

// note keeps on a set what the Deployment's size was when it was last scaled.
func (ro *rollout) note(x *set) {
	x.rs.Annotations[desiredAnnotation] = strconv.Itoa(ro.want)
	x.rs.Annotations[maxAnnotation] = strconv.Itoa(ro.want + ro.surge)
}

// scaledMessage says in kubectl's words what became of a set's size.
func scaledMessage(x *set) string {
	switch {
	case x.want > x.was:
		return fmt.Sprintf("Scaled up replica set %s from %d to %d", x.rs.Name, x.was, x.want)
	case x.want < x.was:
		return fmt.Sprintf("Scaled down replica set %s from %d to %d", x.rs.Name, x.was, x.want)
	default:
		return ""
	}
}
