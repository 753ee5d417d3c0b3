package placement

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Taints are a node's own taints together with those that follow from what it
// says of its state, as Kubernetes' node controller puts them there: one that is
// not ready, or runs short of something, gets no pods but those that tolerate it.
// What followed from its state before is left out.
func Taints(o *corev1.Node) []corev1.Taint {
	own := slices.DeleteFunc(slices.Clone(o.Spec.Taints), isOfCondition)
	return slices.Concat(own, unready(o), pressured(o))
}

// isOfCondition says whether a taint is one that follows from a node's state.
func isOfCondition(t corev1.Taint) bool {
	switch t.Key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure:
		return t.Effect == corev1.TaintEffectNoSchedule
	default:
		return false
	}
}

// unready is the taint of a node that is not ready.
func unready(o *corev1.Node) []corev1.Taint {
	key := corev1.TaintNodeNotReady
	for _, c := range o.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			return nil
		}
		if c.Status == corev1.ConditionUnknown {
			key = corev1.TaintNodeUnreachable
		}
	}
	return []corev1.Taint{{Key: key, Effect: corev1.TaintEffectNoSchedule}}
}

// pressured are the taints of a node that says that it runs short of something.
func pressured(o *corev1.Node) []corev1.Taint {
	var taints []corev1.Taint
	for _, c := range o.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case corev1.NodeDiskPressure:
			taints = append(taints, corev1.Taint{Key: corev1.TaintNodeDiskPressure, Effect: corev1.TaintEffectNoSchedule})
		case corev1.NodePIDPressure:
			taints = append(taints, corev1.Taint{Key: corev1.TaintNodePIDPressure, Effect: corev1.TaintEffectNoSchedule})
		}
	}
	return taints
}
