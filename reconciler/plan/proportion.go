package plan

import (
	"cmp"
	"math/big"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
)

// scale follows a change of the Deployment's replicas. In the middle of an
// update every set takes its share of the change, so that the update's risk
// stays where it was; else the one set that has pods takes it all.
func (ro *rollout) scale() {
	if !ro.d.Spec.Paused && (ro.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || !ro.resized()) {
		return // recreate itself gives the new set its size, when the old pods are gone
	}
	if x, only := ro.activeOrNewest(); only {
		switch {
		case x == nil:
		case x != ro.new && ro.new != nil && x.want < ro.want:
			ro.note(x) // it is on its way out: the new set grows in its place
		default:
			ro.resize(x, ro.want)
			ro.note(x)
		}
		return
	}
	if ro.saturated() {
		for _, x := range ro.sets {
			if x != ro.new {
				ro.resize(x, 0)
			}
		}
		return
	}
	if ro.d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		ro.share()
	}
}

// resized says whether a set was last scaled for another size of the Deployment.
func (ro *rollout) resized() bool {
	for _, x := range ro.sets {
		if n, err := strconv.Atoi(x.rs.Annotations[desiredAnnotation]); x.want > 0 && err == nil && n != ro.want {
			return true
		}
	}
	return false
}

// activeOrNewest is the set to scale when it is the only one: the one with
// replicas or, when none has any, the newest. only is false when several have.
func (ro *rollout) activeOrNewest() (x *set, only bool) {
	var newest *set
	active := 0
	for _, y := range ro.oldest() {
		newest = y
		if y.want > 0 {
			x = y
			active++
		}
	}
	switch {
	case active > 1:
		return nil, false
	case active == 1:
		return x, true
	case ro.new != nil:
		return ro.new, true
	default:
		return newest, true
	}
}

// saturated: the new set alone is already all that is wanted.
func (ro *rollout) saturated() bool {
	if ro.new == nil {
		return false
	}
	n, err := strconv.Atoi(ro.new.rs.Annotations[desiredAnnotation])
	return err == nil && ro.new.want == ro.want && n == ro.want && ro.available(ro.new) == ro.want
}

// share spreads the change over the sets by their size, the largest first; what
// rounding leaves goes to the largest.
func (ro *rollout) share() {
	var active []*set
	for _, x := range ro.sets {
		if x.want > 0 {
			active = append(active, x)
		}
	}
	allowed := 0
	if ro.want > 0 {
		allowed = ro.want + ro.surge
	}
	change := allowed - ro.total()
	slices.SortStableFunc(active, func(a, b *set) int {
		age := a.rs.CreationTimestamp.Compare(b.rs.CreationTimestamp.Time)
		if change > 0 {
			age = -age // growing, the newer of equals goes first
		}
		return cmp.Or(cmp.Compare(b.want, a.want), age)
	})
	sizes := make([]int, len(active))
	left := change
	for i, x := range active {
		part := ro.fraction(x)
		if change > 0 {
			part = min(part, left)
		} else {
			part = max(part, left)
		}
		if change == 0 || left == 0 {
			part = 0
		}
		sizes[i] = x.want + part
		left -= part
	}
	for i, x := range active {
		if i == 0 {
			sizes[i] += left
		}
		ro.resize(x, sizes[i])
		ro.note(x)
	}
}

// fraction is by how much a set's size changes when it keeps its share.
func (ro *rollout) fraction(x *set) int {
	if ro.want == 0 {
		return -x.want
	}
	before, err := strconv.Atoi(x.rs.Annotations[maxAnnotation])
	if err != nil || before <= 0 {
		before = ro.total()
	}
	if before <= 0 {
		return 0
	}
	return round(x.want*(ro.want+ro.surge), before) - x.want
}

// round divides, to the nearest whole number, halves up.
func round(a, b int) int {
	n := new(big.Int).Add(big.NewInt(2*int64(a)), big.NewInt(int64(b)))
	return int(n.Div(n, big.NewInt(2*int64(b))).Int64())
}
