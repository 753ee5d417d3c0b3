package api

import (
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pawl-project/pawl/schema"
)

// replicasOf reads how many pods a workload wants and has, and which they are.
func replicasOf(o metav1.Object) (want, have int32, selector string, ok bool) {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return oneUnlessSaid(o.Spec.Replicas), o.Status.Replicas, metav1.FormatLabelSelector(o.Spec.Selector), true
	case *appsv1.ReplicaSet:
		return oneUnlessSaid(o.Spec.Replicas), o.Status.Replicas, metav1.FormatLabelSelector(o.Spec.Selector), true
	case *corev1.ReplicationController:
		return oneUnlessSaid(o.Spec.Replicas), o.Status.Replicas, labels.SelectorFromSet(o.Spec.Selector).String(), true
	}
	return 0, 0, "", false
}

func oneUnlessSaid(replicas *int32) int32 {
	if replicas == nil {
		return 1
	}
	return *replicas
}

// hasStatus says whether the objects of a kind have a status, and with it the
// subresource.
func hasStatus(o schema.Object) bool {
	return reflect.ValueOf(o).Elem().FieldByName("Status").IsValid()
}

// copyStatus gives an object the status of another of its kind.
func copyStatus(to, from schema.Object) {
	status := reflect.ValueOf(to).Elem().FieldByName("Status")
	if status.IsValid() && status.CanSet() {
		status.Set(reflect.ValueOf(copyOf(from)).Elem().FieldByName("Status"))
	}
}
