package gateway

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// sinceWhen gives the taints that drive pods away the time since when the node
// has them: what pods bear of them is counted from there. A node does not
// remember that, and its own clock is not asked.
func sinceWhen(told, old *corev1.Node, now time.Time) {
	for i := range told.Spec.Taints {
		t := &told.Spec.Taints[i]
		t.TimeAdded = nil
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		at := metav1.NewTime(now.Truncate(time.Second))
		t.TimeAdded = &at
		if old == nil {
			continue
		}
		for _, o := range old.Spec.Taints {
			if o.MatchTaint(t) && o.Value == t.Value && o.TimeAdded != nil {
				t.TimeAdded = o.TimeAdded
			}
		}
	}
}
