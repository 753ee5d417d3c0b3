package placement

import corev1 "k8s.io/api/core/v1"

// pressured are the taints of a node that says that it runs short of something,
// as Kubernetes' node controller would put them there: until it has room again
// it gets no pods but those that tolerate it.
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
