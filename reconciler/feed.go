package reconciler

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// changes is what the views say has changed, waiting to be fed to the planner.
type changes struct {
	desired, assignments, actual *kv.Changes
}

func (v views) subscribe() changes {
	return changes{desired: v.desired.Subscribe(), assignments: v.assignments.Subscribe(), actual: v.actual.Subscribe()}
}

func (c changes) close() {
	c.desired.Close()
	c.assignments.Close()
	c.actual.Close()
}

// feed tells the planner what changed since the last time, and nothing else:
// its work is proportional to that. Objects that the store has lost left no
// repository: after a loss the revision is to be compared with the store anew.
// A view can be lost and whole again within one step, so being whole at its
// beginning does not tell.
func (l *loop) feed(c changes) {
	for _, key := range c.desired.Drain() {
		l.feedDesired(key)
	}
	if n := l.views.desired.Losses(); n != l.losses {
		l.losses, l.checked = n, false
	}
	for _, key := range c.assignments.Drain() {
		l.feedAssignment(key)
	}
	for _, key := range c.actual.Drain() {
		l.feedActual(key)
	}
}

// feedDesired, feedAssignment and feedActual ignore keys that nobody here
// writes: what is not recognised is left alone.
func (l *loop) feedDesired(key string) {
	k, err := kv.ParseObjectKey(key)
	if err != nil {
		return
	}
	var o schema.Object
	if e, ok := l.views.desired.Get(key); ok {
		o = e.Value
	}
	l.planner.SetDesired(k, o)
}

func (l *loop) feedAssignment(key string) {
	node, pod, err := kv.ParseAssignmentKey(key)
	if err != nil {
		return
	}
	var a *schema.Assignment
	if e, ok := l.views.assignments.Get(key); ok {
		a = &e.Value
	}
	l.planner.SetAssignment(node, pod, a)
}

func (l *loop) feedActual(key string) {
	k, err := kv.ParseObjectKey(key)
	if err != nil {
		return
	}
	e, _ := l.views.actual.Get(key)
	switch k.Kind {
	case schema.Pods:
		l.planner.SetReport(schema.PodKey{Namespace: k.Namespace, Name: k.Name}, e.Value.Report)
	case schema.Nodes:
		node, _ := e.Value.Object.(*corev1.Node)
		l.planner.SetNode(schema.NodeName(k.Name), node)
	case schema.ReplicaSets:
		l.feedReplicaSet(k, e.Value.Object)
	case schema.Deployments, schema.ReplicationControllers:
		l.planner.SetStatus(k, e.Value.Object)
	}
}

// feedReplicaSet tells a ReplicaSet that the planner made, which has a spec,
// from the status of one that stands in the repository.
func (l *loop) feedReplicaSet(k schema.ObjectKey, o schema.Object) {
	rs, _ := o.(*appsv1.ReplicaSet)
	if rs != nil && rs.Spec.Selector != nil {
		l.planner.SetReplicaSet(k, rs)
		l.planner.SetStatus(k, nil)
		return
	}
	l.planner.SetReplicaSet(k, nil)
	l.planner.SetStatus(k, o)
}
