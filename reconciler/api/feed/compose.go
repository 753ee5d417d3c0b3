package feed

import (
	"reflect"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// composeWorkload makes an object of the manifest and the status that the
// planner wrote beside it, or of a ReplicaSet that the planner made. It returns
// nil when there is no such object, else when its newest part was stored.
func composeWorkload(desired, actual *part[schema.Object]) (schema.Object, time.Time) {
	whole := actual != nil && isWhole(actual.value)
	switch {
	case desired == nil && !whole: // a status of nothing is nothing
		return nil, time.Time{}
	case desired == nil:
		return copyOf(actual.value), actual.stored
	case actual == nil || whole: // the planner's ReplicaSet makes way for the manifest's
		return copyOf(desired.value), desired.stored
	}
	o := copyOf(desired.value)
	if !setStatus(o, actual.value) {
		return o, desired.stored
	}
	return o, later(desired.stored, actual.stored)
}

// isWhole tells a ReplicaSet that the planner made from a status.
func isWhole(o schema.Object) bool {
	rs, ok := o.(*appsv1.ReplicaSet)
	return ok && rs.Spec.Selector != nil
}

// setStatus gives o, a copy, the status of another of its kind, and says whether
// it did.
func setStatus(o, status schema.Object) bool {
	switch o := o.(type) {
	case *appsv1.Deployment:
		if s, ok := status.(*appsv1.Deployment); ok {
			o.Status = s.Status
			return true
		}
	case *appsv1.ReplicaSet:
		if s, ok := status.(*appsv1.ReplicaSet); ok {
			o.Status = s.Status
			return true
		}
	case *corev1.ReplicationController:
		if s, ok := status.(*corev1.ReplicationController); ok {
			o.Status = s.Status
			return true
		}
	}
	return false
}

// composeEvent is an Event as the API shows it: with a uid, and created when it
// was stored if it does not say.
func composeEvent(e part[*corev1.Event]) (schema.Object, time.Time) {
	c := copyOf(e.value).(*corev1.Event)
	if c.UID == "" {
		c.UID = schema.UIDOf(schema.KeyOf(c))
	}
	if c.CreationTimestamp.IsZero() {
		c.CreationTimestamp.Time = e.stored.Truncate(time.Second)
	}
	return c, e.stored
}

// composeRevision is the record of a commit as the API shows it.
func composeRevision(r part[*schema.RevisionRecord]) (schema.Object, time.Time) {
	return schema.NewRevisionObject(r.value), r.stored
}

// copyOf copies an object's struct: its own fields and those of its metadata may
// be set, and what they refer to is shared. Nobody applies anything here, so that
// there are no managed fields.
func copyOf(o schema.Object) schema.Object {
	v := reflect.ValueOf(o).Elem()
	n := reflect.New(v.Type())
	n.Elem().Set(v)
	c := n.Interface().(schema.Object)
	c.SetManagedFields(nil)
	return c
}
