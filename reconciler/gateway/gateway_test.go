package gateway

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Data:       map[string]string{"key": value},
	}
}

func secret(name, value string) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Data:       map[string][]byte{"key": []byte(value)},
	}
}

func (c *cluster) desire(o schema.Object) {
	c.t.Helper()
	if s, ok := o.(*corev1.Secret); ok {
		o = must[*corev1.Secret](c.t)(c.sealer.Seal(s))
	}
	c.put(kv.Desired, kv.ObjectKey(schema.KeyOf(o)), o)
}

func TestAssignmentsGoDownAndReportsComeUp(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("before"))
	a := c.agent("n1")
	eventually(t, "the set holds what was assigned before", a.holds(func(a *agent) bool { return len(a.pods) == 1 }))

	c.desire(configMap("settings", "blue"))
	c.desire(secret("password", "opensesame"))
	c.desire(secret("other", "of nobody"))
	c.assign("n2", pod("elsewhere"))
	c.assign("n1", pod("after", func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "password"}}}}
	}))
	eventually(t, "the delta brings the pod and what it uses", a.holds(func(a *agent) bool {
		return len(a.pods) == 2 && a.maps["settings"].Data["key"] == "blue" && string(a.secret["password"].Data["key"]) == "opensesame"
	}))
	if !a.holds(func(a *agent) bool { return len(a.secret) == 1 && a.wholes == 1 })() {
		t.Errorf("the node got secrets %d, wholes %d", len(a.secret), a.wholes)
	}

	c.desire(configMap("settings", "green"))
	eventually(t, "a changed ConfigMap is a delta", a.holds(func(a *agent) bool { return a.maps["settings"].Data["key"] == "green" }))

	if err := a.ReportPods(t.Context(), []schema.PodReport{report("n1", pod("after"), corev1.PodRunning)}); err != nil {
		t.Fatal(err)
	}
	got := c.stored("after")
	if got == nil || got.Pod.Status.Phase != corev1.PodRunning || len(got.Pod.Spec.Volumes) != 1 {
		t.Errorf("stored: %+v", got)
	}
	if err := a.ReportNode(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.store.GetLease(t.Context(), kv.NodeLeaseKey("n1")); err != nil {
		t.Error(err)
	}

	c.remove(kv.Assignments, kv.AssignmentKey("n1", schema.PodKey{Namespace: "default", Name: "after"}))
	eventually(t, "a removed pod takes along what only it used", a.holds(func(a *agent) bool {
		return len(a.pods) == 1 && len(a.maps) == 0 && len(a.secret) == 0
	}))
}
