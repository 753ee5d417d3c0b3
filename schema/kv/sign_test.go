package kv

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// What a node hands back is known again, with whatever status and deletion, and
// nothing else is.
func TestSignature(t *testing.T) {
	s, err := NewSealer(filepath.Join(t.TempDir(), "cluster.age"))
	if err != nil {
		t.Fatal(err)
	}
	a := schema.Assignment{Node: "n1", Pod: somePod("a")}
	a.Pod.UID, a.Pod.Labels = "u1", map[string]string{"b": "2", "a": "1"}
	a.Pod.Spec.Containers = []corev1.Container{{Name: "main", Image: "busybox", Resources: corev1.ResourceRequirements{
		Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1024Mi"), corev1.ResourceCPU: resource.MustParse("0.5")},
	}}}
	if a.Signature, err = s.Sign(&a); err != nil {
		t.Fatal(err)
	}
	back := func(change func(*schema.PodReport)) bool {
		t.Helper()
		text, err := json.Marshal(a) // to the store, to the node, and back
		if err != nil {
			t.Fatal(err)
		}
		var kept schema.Assignment
		if err := json.Unmarshal(text, &kept); err != nil {
			t.Fatal(err)
		}
		r := schema.PodReport{Node: kept.Node, Pod: kept.Pod, Signature: kept.Signature}
		change(&r)
		return s.Signed(&r)
	}
	now := metav1.NewTime(time.Unix(1, 0))
	for what, change := range map[string]func(*schema.PodReport){
		"nothing":    func(*schema.PodReport) {},
		"its status": func(r *schema.PodReport) { r.Pod.Status.Phase = corev1.PodRunning },
		"its end":    func(r *schema.PodReport) { r.Pod.DeletionTimestamp, r.Gone = &now, true },
	} {
		if !back(change) {
			t.Errorf("changed %s: it is not known again", what)
		}
	}
	for what, change := range map[string]func(*schema.PodReport){
		"no signature":    func(r *schema.PodReport) { r.Signature = "" },
		"another":         func(r *schema.PodReport) { r.Signature += "A" },
		"another node":    func(r *schema.PodReport) { r.Node = "n2" },
		"another name":    func(r *schema.PodReport) { r.Pod.Name = "b" },
		"another uid":     func(r *schema.PodReport) { r.Pod.UID = "u2" },
		"another label":   func(r *schema.PodReport) { r.Pod.Labels["a"] = "3" },
		"an annotation":   func(r *schema.PodReport) { r.Pod.Annotations = map[string]string{"a": "b"} },
		"an owner":        func(r *schema.PodReport) { r.Pod.OwnerReferences = []metav1.OwnerReference{{Name: "x"}} },
		"another account": func(r *schema.PodReport) { r.Pod.Spec.ServiceAccountName = "admin" },
		"a Secret": func(r *schema.PodReport) {
			r.Pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}}
		},
	} {
		if back(change) {
			t.Errorf("%s: it is known", what)
		}
	}
}
