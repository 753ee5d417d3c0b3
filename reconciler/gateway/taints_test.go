package gateway

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestATaintIsAsOldAsItIs(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tell := func(old *corev1.Node, now time.Time, value string) *corev1.Node {
		n := &corev1.Node{}
		n.Spec.Taints = []corev1.Taint{{Key: "sick", Value: value, Effect: corev1.TaintEffectNoExecute}, {Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}
		sinceWhen(n, old, now)
		return n
	}
	first := tell(nil, noon, "a")
	if at := first.Spec.Taints[0].TimeAdded; at == nil || !at.Time.Equal(noon) || first.Spec.Taints[1].TimeAdded != nil {
		t.Fatalf("at first: %v", first.Spec.Taints)
	}
	again := tell(first, noon.Add(time.Hour), "a")
	if !again.Spec.Taints[0].TimeAdded.Time.Equal(noon) {
		t.Errorf("told again: %v", again.Spec.Taints)
	}
	if other := tell(again, noon.Add(2*time.Hour), "b"); other.Spec.Taints[0].TimeAdded.Time.Equal(noon) {
		t.Errorf("another taint: %v", other.Spec.Taints)
	}
}
