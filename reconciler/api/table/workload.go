package table

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

var (
	containersColumn = inWide(text("Containers", "Names of each container in the template."))
	imagesColumn     = inWide(text("Images", "Images referenced by each container in the template."))
)

var deployments = of(func(d *appsv1.Deployment, now time.Time) []any {
	names, images := containers(&d.Spec.Template)
	return []any{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 1)),
		int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), age(d.CreationTimestamp, now),
		names, images, selects(d.Spec.Selector),
	}
},
	nameColumn,
	text("Ready", "Number of the pod with ready state"),
	text("Up-to-date", appsv1.DeploymentStatus{}.SwaggerDoc()["updatedReplicas"]),
	text("Available", appsv1.DeploymentStatus{}.SwaggerDoc()["availableReplicas"]),
	ageColumn, containersColumn, imagesColumn,
	inWide(text("Selector", appsv1.DeploymentSpec{}.SwaggerDoc()["selector"])),
)

var replicaSets = of(func(r *appsv1.ReplicaSet, now time.Time) []any {
	names, images := containers(&r.Spec.Template)
	return []any{
		r.Name, int64(ptr.Deref(r.Spec.Replicas, 1)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
		age(r.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(r.Spec.Selector),
	}
},
	nameColumn,
	number("Desired", appsv1.ReplicaSetSpec{}.SwaggerDoc()["replicas"]),
	number("Current", appsv1.ReplicaSetStatus{}.SwaggerDoc()["replicas"]),
	number("Ready", appsv1.ReplicaSetStatus{}.SwaggerDoc()["readyReplicas"]),
	ageColumn, containersColumn, imagesColumn,
	inWide(text("Selector", appsv1.ReplicaSetSpec{}.SwaggerDoc()["selector"])),
)

var replicationControllers = of(func(r *corev1.ReplicationController, now time.Time) []any {
	names, images := containers(r.Spec.Template)
	return []any{
		r.Name, int64(ptr.Deref(r.Spec.Replicas, 1)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
		age(r.CreationTimestamp, now), names, images, labels.FormatLabels(r.Spec.Selector),
	}
},
	nameColumn,
	number("Desired", corev1.ReplicationControllerSpec{}.SwaggerDoc()["replicas"]),
	number("Current", corev1.ReplicationControllerStatus{}.SwaggerDoc()["replicas"]),
	number("Ready", corev1.ReplicationControllerStatus{}.SwaggerDoc()["readyReplicas"]),
	ageColumn, containersColumn, imagesColumn,
	inWide(text("Selector", corev1.ReplicationControllerSpec{}.SwaggerDoc()["selector"])),
)

// selects writes a Deployment's selector. Unlike a ReplicaSet's, an empty one is
// an empty cell: Kubernetes prints them so.
func selects(s *metav1.LabelSelector) string {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "<invalid>"
	}
	return selector.String()
}

// containers lists a template's containers and their images. A nil template has
// none.
func containers(t *corev1.PodTemplateSpec) (names, images string) {
	if t == nil {
		return "", ""
	}
	var n, i []string
	for _, c := range t.Spec.Containers {
		n, i = append(n, c.Name), append(i, c.Image)
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}
