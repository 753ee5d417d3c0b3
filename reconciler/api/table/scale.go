package table

import (
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Scale returns the columns of an *autoscalingv1.Scale, which is a subresource
// and no kind.
func Scale() Columns { return scale }

var scale = of(func(s *autoscalingv1.Scale, now time.Time) []any {
	return []any{s.Name, int64(s.Spec.Replicas), int64(s.Status.Replicas), age(s.CreationTimestamp, now)}
},
	text("Name", metav1.ObjectMeta{}.SwaggerDoc()["name"]),
	number("Desired", autoscalingv1.ScaleSpec{}.SwaggerDoc()["replicas"]),
	number("Available", autoscalingv1.ScaleStatus{}.SwaggerDoc()["replicas"]),
	ageColumn,
)
