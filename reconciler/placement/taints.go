package placement

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// tolerates says whether a toleration covers a taint: an empty effect covers
// every effect, an empty key with Exists every taint.
func tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Key != "" && t.Value == taint.Value
	default:
		return false
	}
}

// tolerated says whether a pod can be where a taint is. One that would be driven
// away at once cannot.
func tolerated(p *corev1.Pod, taint *corev1.Taint) bool {
	for i := range p.Spec.Tolerations {
		t := &p.Spec.Tolerations[i]
		atOnce := taint.Effect == corev1.TaintEffectNoExecute && t.TolerationSeconds != nil && *t.TolerationSeconds <= 0
		if tolerates(t, taint) && !atOnce {
			return true
		}
	}
	return false
}

// forbids is the first taint that keeps a pod off the node; nil: none does.
func (n *node) forbids(p *corev1.Pod) *corev1.Taint {
	for i := range n.taints {
		if t := &n.taints[i]; t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerated(p, t) {
			return t
		}
	}
	return nil
}

// drivesAway is the first taint that would drive a pod away from the node.
func (n *node) drivesAway(p *corev1.Pod) *corev1.Taint {
	for i := range n.taints {
		if t := &n.taints[i]; t.Effect == corev1.TaintEffectNoExecute && !tolerated(p, t) {
			return t
		}
	}
	return nil
}

// dislikes is how many taints would rather not have the pod.
func (n *node) dislikes(p *corev1.Pod) int {
	if n.disliked == 0 {
		return 0
	}
	count := 0
	for i := range n.taints {
		if t := &n.taints[i]; t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerated(p, t) {
			count++
		}
	}
	return count
}

// Evicts says whether the NoExecute taints of a node drive a pod away that is
// there since then, and at which time, which may be to come. Tolerations with
// tolerationSeconds count from when the pod and the taint met.
func Evicts(taints []corev1.Taint, p *corev1.Pod, since time.Time) (at time.Time, evicts bool) {
	for i := range taints {
		taint := &taints[i]
		if taint.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		met := since
		if taint.TimeAdded != nil && taint.TimeAdded.After(met) {
			met = taint.TimeAdded.Time
		}
		end, bounded := bearable(p, taint, met)
		if bounded && (!evicts || end.Before(at)) {
			at, evicts = end, true
		}
	}
	return at, evicts
}

// bearable says until when a pod bears a taint that it met at a time; it is not
// bounded when for ever. Of several tolerations the shortest counts.
func bearable(p *corev1.Pod, taint *corev1.Taint, met time.Time) (end time.Time, bounded bool) {
	covered := false
	for i := range p.Spec.Tolerations {
		t := &p.Spec.Tolerations[i]
		if !tolerates(t, taint) {
			continue
		}
		covered = true
		if t.TolerationSeconds == nil {
			continue
		}
		e := met.Add(time.Duration(max(*t.TolerationSeconds, 0)) * time.Second)
		if !bounded || e.Before(end) {
			end, bounded = e, true
		}
	}
	if !covered {
		return met, true
	}
	return end, bounded
}
