package plan

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

// describe writes changes as people read them, one a line.
func describe(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		b.WriteString(describeOne(c))
		if c.Event != "" {
			fmt.Fprintf(&b, " | %s", c.Event)
		}
		fmt.Fprintf(&b, " | %s\n", c.Message)
	}
	return b.String()
}

func describeOne(c Change) string {
	switch {
	case c.Assign != nil && c.Assign.Pod.DeletionTimestamp != nil:
		return fmt.Sprintf("end      %s on %s", c.Assign.Pod.Name, c.Assign.Node)
	case c.Assign != nil:
		return fmt.Sprintf("assign   %s to %s image=%s", c.Assign.Pod.Name, c.Assign.Node, c.Assign.Pod.Spec.Containers[0].Image) + describeAccount(&c.Assign.Pod.Spec)
	case c.Unassign != nil:
		return fmt.Sprintf("unassign %s from %s", c.Unassign.Pod.Name, c.Unassign.Node)
	case c.Delete != nil:
		return fmt.Sprintf("delete   %s %s", c.Delete.Kind, c.Delete.Name)
	case c.Put != nil:
		return fmt.Sprintf("put      %s %s %s", schema.KeyOf(c.Put).Kind, c.Put.GetName(), describeStatus(c.Put))
	default:
		return "nothing"
	}
}

func describeStatus(o schema.Object) string {
	switch o := o.(type) {
	case *appsv1.ReplicaSet:
		s := fmt.Sprintf("replicas=%d ready=%d available=%d", o.Status.Replicas, o.Status.ReadyReplicas, o.Status.AvailableReplicas)
		if o.Spec.Selector != nil {
			s = fmt.Sprintf("want=%d revision=%s ", ptr.Deref(o.Spec.Replicas, 1), o.Annotations[revisionAnnotation]) + s
		}
		return s
	case *corev1.ReplicationController:
		return fmt.Sprintf("replicas=%d ready=%d available=%d", o.Status.Replicas, o.Status.ReadyReplicas, o.Status.AvailableReplicas)
	case *appsv1.Deployment:
		s := fmt.Sprintf("replicas=%d updated=%d ready=%d available=%d unavailable=%d",
			o.Status.Replicas, o.Status.UpdatedReplicas, o.Status.ReadyReplicas, o.Status.AvailableReplicas, o.Status.UnavailableReplicas)
		for _, c := range o.Status.Conditions {
			s += fmt.Sprintf(" %s=%s:%s", c.Type, c.Status, c.Reason)
		}
		return s
	case *PendingPod:
		return string(o.Status.Phase)
	default:
		return ""
	}
}
