package gateway

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// What a node says of its state stands on it as a taint for as long as it says
// so, beside the taints that it was given; a node cannot make one up.
func TestWhatANodeRunsShortOfIsATaint(t *testing.T) {
	c := newCluster(t)
	a := c.agent("n1")
	gpu := corev1.Taint{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}
	says := func(ready, disk corev1.ConditionStatus, taints ...corev1.Taint) []corev1.Taint {
		t.Helper()
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{Taints: taints}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}, {Type: corev1.NodeDiskPressure, Status: disk}}
		if err := a.ReportNode(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		e, _ := c.actual.Get(kv.ObjectKey(schema.ObjectKey{Kind: schema.Nodes, Name: "n1"}))
		return e.Value.Object.(*corev1.Node).Spec.Taints
	}
	want := func(what string, got []corev1.Taint, keys ...string) {
		t.Helper()
		if len(got) != len(keys) {
			t.Fatalf("%s: taints %v, want %v", what, got, keys)
		}
		for i, key := range keys {
			if got[i].Key != key || got[i].Effect != corev1.TaintEffectNoSchedule {
				t.Errorf("%s: taints %v, want %v", what, got, keys)
			}
		}
	}
	want("all is well", says(corev1.ConditionTrue, corev1.ConditionFalse, gpu), "gpu")
	short := says(corev1.ConditionTrue, corev1.ConditionTrue, gpu)
	want("no room on the disk", short, "gpu", corev1.TaintNodeDiskPressure)
	want("told again", says(corev1.ConditionTrue, corev1.ConditionTrue, short...), "gpu", corev1.TaintNodeDiskPressure)
	want("not ready", says(corev1.ConditionFalse, corev1.ConditionTrue), corev1.TaintNodeNotReady, corev1.TaintNodeDiskPressure)
	want("over, though the node repeats it", says(corev1.ConditionTrue, corev1.ConditionFalse, short...), "gpu")
}
