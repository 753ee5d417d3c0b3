package plan

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
)

// The reasons of a Deployment's conditions, as Kubernetes has them.
const (
	reasonAvailable   = "MinimumReplicasAvailable"
	reasonUnavailable = "MinimumReplicasUnavailable"
	reasonCreated     = "NewReplicaSetCreated"
	reasonFound       = "FoundNewReplicaSet"
	reasonUpdated     = "ReplicaSetUpdated"
	reasonComplete    = "NewReplicaSetAvailable"
	reasonTimedOut    = "ProgressDeadlineExceeded"
	reasonPaused      = "DeploymentPaused"
	reasonResumed     = "DeploymentResumed"
)

// status is the Deployment's status after this plan.
func (ro *rollout) status() appsv1.DeploymentStatus {
	old := ro.oldStatus()
	st := appsv1.DeploymentStatus{ObservedGeneration: ro.d.Generation, Conditions: slices.Clone(old.Conditions)}
	for _, x := range ro.sets {
		n := x.count()
		st.Replicas += n.replicas
		st.ReadyReplicas += n.ready
		st.AvailableReplicas += n.available
		if x == ro.new {
			st.UpdatedReplicas = n.replicas
		}
	}
	st.UnavailableReplicas = max(int32(ro.total())-st.AvailableReplicas, 0)
	ro.judgeAvailability(&st)
	ro.judgeProgress(&old, &st)
	return st
}

func (ro *rollout) oldStatus() appsv1.DeploymentStatus {
	if o, ok := ro.s.r.status.(*appsv1.Deployment); ok {
		return o.Status
	}
	return appsv1.DeploymentStatus{}
}

func (ro *rollout) judgeAvailability(st *appsv1.DeploymentStatus) {
	if int(st.AvailableReplicas) >= ro.want-ro.unavailable {
		ro.set(st, appsv1.DeploymentAvailable, corev1.ConditionTrue, reasonAvailable, "Deployment has minimum availability.", false)
	} else {
		ro.set(st, appsv1.DeploymentAvailable, corev1.ConditionFalse, reasonUnavailable, "Deployment does not have minimum availability.", false)
	}
}

// judgeProgress says how the update goes, and asks to look again when its
// deadline passes.
func (ro *rollout) judgeProgress(old, st *appsv1.DeploymentStatus) {
	deadline := ptr.Deref(ro.d.Spec.ProgressDeadlineSeconds, math.MaxInt32)
	now := condition(st, appsv1.DeploymentProgressing)
	if deadline == math.MaxInt32 {
		st.Conditions = slices.DeleteFunc(st.Conditions, func(c appsv1.DeploymentCondition) bool {
			return c.Type == appsv1.DeploymentProgressing
		})
		return
	}
	set := func(status corev1.ConditionStatus, reason, message string, renew bool) {
		ro.set(st, appsv1.DeploymentProgressing, status, reason, message, renew)
	}
	if ro.d.Spec.Paused {
		if now == nil || now.Reason != reasonTimedOut {
			set(corev1.ConditionUnknown, reasonPaused, "Deployment is paused", false)
		}
		return
	}
	if now != nil && now.Reason == reasonPaused {
		set(corev1.ConditionUnknown, reasonResumed, "Deployment is resumed", false)
		now = condition(st, appsv1.DeploymentProgressing)
	}
	name := ro.new.rs.Name
	switch {
	case ro.done(st):
		set(corev1.ConditionTrue, reasonComplete, fmt.Sprintf("ReplicaSet %q has successfully progressed.", name), false)
		return
	case now != nil && now.Reason == reasonComplete && !ro.made && st.Replicas == st.UpdatedReplicas:
		return // a pod of a finished update was lost: no new update
	case ro.made:
		set(corev1.ConditionTrue, reasonCreated, fmt.Sprintf("Created new replica set %q", name), true)
	case progressed(old, st):
		set(corev1.ConditionTrue, reasonUpdated, fmt.Sprintf("ReplicaSet %q is progressing.", name), true)
	case now == nil || now.Reason == reasonComplete:
		set(corev1.ConditionTrue, reasonFound, fmt.Sprintf("Found new replica set %q", name), true)
	}
	now = condition(st, appsv1.DeploymentProgressing)
	if now.Reason == reasonTimedOut {
		return
	}
	if at := now.LastUpdateTime.Add(time.Duration(deadline) * time.Second); ro.s.now.Before(at) {
		ro.s.again(at)
		return
	}
	set(corev1.ConditionFalse, reasonTimedOut, fmt.Sprintf("ReplicaSet %q has timed out progressing.", name), true)
}

func progressed(old, st *appsv1.DeploymentStatus) bool {
	return st.UpdatedReplicas > old.UpdatedReplicas ||
		st.Replicas-st.UpdatedReplicas < old.Replicas-old.UpdatedReplicas ||
		st.ReadyReplicas > old.ReadyReplicas || st.AvailableReplicas > old.AvailableReplicas
}

// done: the pods are all new, as many as wanted, and available.
func (ro *rollout) done(st *appsv1.DeploymentStatus) bool {
	want := int32(ro.want)
	return st.UpdatedReplicas == want && st.Replicas == want && st.AvailableReplicas == want
}

// complete is done before there is a status.
func (ro *rollout) complete() bool {
	if ro.new == nil || ro.new.want != ro.want || ro.available(ro.new) != ro.want {
		return false
	}
	for _, x := range ro.sets {
		if x != ro.new && (x.want > 0 || len(x.pods) > 0) {
			return false
		}
	}
	return true
}

// settled: complete and nothing on its way out; of a paused Deployment, as many
// pods as wanted, of whatever template; none when it was paused from the start.
func (ro *rollout) settled(st *appsv1.DeploymentStatus) bool {
	for _, x := range ro.sets {
		if len(x.rest) > 0 || len(x.leaving) > 0 {
			return false
		}
	}
	if ro.d.Spec.Paused {
		return len(ro.sets) == 0 || int(st.AvailableReplicas) >= ro.want
	}
	return ro.done(st)
}

func condition(st *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range st.Conditions {
		if st.Conditions[i].Type == t {
			return &st.Conditions[i]
		}
	}
	return nil
}

// set sets a condition. Its times change only when it does, or when renew says
// that there was progress.
func (ro *rollout) set(st *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string, renew bool) {
	now := stamp(ro.s.now)
	c := condition(st, t)
	if c == nil {
		st.Conditions = append(st.Conditions, appsv1.DeploymentCondition{Type: t, LastTransitionTime: now})
		c = &st.Conditions[len(st.Conditions)-1]
	}
	if c.Status != status {
		c.LastTransitionTime = now
	}
	if renew || c.Status != status || c.Reason != reason || c.Message != message {
		c.LastUpdateTime = now
	}
	c.Status, c.Reason, c.Message = status, reason, message
}

// writeStatus puts the status when it changed.
func (ro *rollout) writeStatus(st appsv1.DeploymentStatus) {
	o := &appsv1.Deployment{TypeMeta: ro.d.TypeMeta, ObjectMeta: statusMeta(ro.d), Status: st}
	if ro.new != nil {
		o.Annotations = map[string]string{revisionAnnotation: ro.new.rs.Annotations[revisionAnnotation]}
	}
	old, ok := ro.s.r.status.(*appsv1.Deployment)
	if ok && maps.Equal(old.Annotations, o.Annotations) && equality.Semantic.DeepEqual(old.Status, st) {
		return
	}
	ro.s.last(Change{Put: o, About: ro.s.r.key, Message: fmt.Sprintf("%d of %d replicas are available", st.AvailableReplicas, ro.want)})
}

// write puts a set when it changed.
func (ro *rollout) write(x *set) {
	if x.want != int(ptr.Deref(x.rs.Spec.Replicas, 0)) || x.old == nil {
		ro.note(x)
	}
	message := scaledMessage(x)
	x.rs.Spec.Replicas = ptr.To(int32(x.want))
	n := x.count()
	if x.old == nil {
		x.rs.Generation = 1
	} else if ptr.Deref(x.old.Spec.Replicas, 0) != int32(x.want) || x.old.Spec.MinReadySeconds != x.rs.Spec.MinReadySeconds {
		x.rs.Generation = x.old.Generation + 1
	}
	x.rs.Status = appsv1.ReplicaSetStatus{
		Replicas: n.replicas, FullyLabeledReplicas: n.labeled, ReadyReplicas: n.ready, AvailableReplicas: n.available,
		ObservedGeneration: x.rs.Generation,
	}
	if x.old != nil && x.rs.Generation == x.old.Generation && maps.Equal(x.rs.Annotations, x.old.Annotations) &&
		equality.Semantic.DeepEqual(x.rs.Status, x.old.Status) {
		return
	}
	c := Change{Put: x.rs.DeepCopy(), About: ro.s.r.key, Message: message}
	switch {
	case message != "":
		c.Type, c.Event = corev1.EventTypeNormal, "ScalingReplicaSet"
	case x.why != "":
		c.Message = x.why
	default:
		c.Message = available(n, x.want)
	}
	ro.s.first(c)
}
