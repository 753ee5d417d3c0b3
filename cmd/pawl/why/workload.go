package why

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// deployment is empty when every replica is of the newest form and available.
func (e explainer) deployment(d *appsv1.Deployment) []Finding {
	name, want := "Deployment "+d.Name, ptr.Deref(d.Spec.Replicas, 1)
	st := d.Status
	f := Finding{Object: name}
	available, progressing := deploymentCondition(st, appsv1.DeploymentAvailable), deploymentCondition(st, appsv1.DeploymentProgressing)
	switch {
	case st.ObservedGeneration < d.Generation:
		f.State = "its newest form has not been taken up yet"
		return []Finding{f}
	case d.Spec.Paused:
		f.State = "paused: new pods keep the old form"
		f.Remedy = "take spec.paused out of the manifest to go on"
		if st.UpdatedReplicas >= want && st.AvailableReplicas >= want {
			return nil
		}
	case st.UpdatedReplicas == want && st.Replicas == want && st.AvailableReplicas >= want:
		return nil
	case st.UpdatedReplicas < want:
		f.State = fmt.Sprintf("%d of %d updated, %d available", st.UpdatedReplicas, want, st.AvailableReplicas)
	case st.AvailableReplicas < want:
		f.State = fmt.Sprintf("%d of %d available", st.AvailableReplicas, want)
	default:
		f.State = fmt.Sprintf("%d of the old form are still to go", st.Replicas-want)
	}
	if available != nil && available.Status == corev1.ConditionFalse {
		f.Since = at(available.LastTransitionTime)
	}
	if progressing != nil && progressing.Reason == "ProgressDeadlineExceeded" {
		f.Detail = progressing.Message
	}
	f.Because = e.sets(d)
	return []Finding{f}
}

// sets says what the Deployment's ReplicaSets wait for, the newest first.
func (e explainer) sets(d *appsv1.Deployment) []Finding {
	var sets []*appsv1.ReplicaSet
	for i := range e.w.ReplicaSets {
		if rs := &e.w.ReplicaSets[i]; ownedBy(rs, d.UID, "Deployment", d.Name) {
			sets = append(sets, rs)
		}
	}
	slices.SortFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	var out []Finding
	for _, rs := range sets {
		out = append(out, e.replicas(setOf(rs))...)
	}
	return out
}

// A set is what ReplicaSets and ReplicationControllers have in common.
type set struct {
	metav1.Object
	kind                         string
	want, have, ready, available int32
	minReady                     time.Duration
	failure, detail              string // of the ReplicaFailure condition
}

func setOf(rs *appsv1.ReplicaSet) set {
	s := set{
		Object: rs, kind: "ReplicaSet", want: ptr.Deref(rs.Spec.Replicas, 1),
		have: rs.Status.Replicas, ready: rs.Status.ReadyReplicas, available: rs.Status.AvailableReplicas,
		minReady: time.Duration(rs.Spec.MinReadySeconds) * time.Second,
	}
	for _, c := range rs.Status.Conditions {
		if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
			s.failure, s.detail = c.Reason, c.Message
		}
	}
	return s
}

func controllerOf(rc *corev1.ReplicationController) set {
	s := set{
		Object: rc, kind: "ReplicationController", want: ptr.Deref(rc.Spec.Replicas, 1),
		have: rc.Status.Replicas, ready: rc.Status.ReadyReplicas, available: rc.Status.AvailableReplicas,
		minReady: time.Duration(rc.Spec.MinReadySeconds) * time.Second,
	}
	for _, c := range rc.Status.Conditions {
		if c.Type == corev1.ReplicationControllerReplicaFailure && c.Status == corev1.ConditionTrue {
			s.failure, s.detail = c.Reason, c.Message
		}
	}
	return s
}

// replicas is empty when as many pods are available as are wanted.
func (e explainer) replicas(s set) []Finding {
	if s.have == s.want && s.available >= s.want {
		return nil
	}
	f := Finding{Object: s.kind + " " + s.GetName()}
	switch {
	case s.have < s.want:
		f.State = fmt.Sprintf("%d of %d pods made", s.have, s.want)
	case s.have > s.want:
		f.State = fmt.Sprintf("%d pods, %d wanted", s.have, s.want)
	case s.ready < s.want:
		f.State = fmt.Sprintf("%d of %d ready", s.ready, s.want)
	default:
		f.State = fmt.Sprintf("%d of %d available", s.available, s.want)
	}
	if s.failure != "" {
		f.Detail = s.failure + ": " + s.detail
	}
	f.Because = alike(e.pods(s))
	return []Finding{f}
}

// pods says what the pods of a set wait for, by name.
func (e explainer) pods(s set) []Finding {
	var pods []*corev1.Pod
	for i := range e.w.Pods {
		if p := &e.w.Pods[i]; ownedBy(p, s.GetUID(), s.kind, s.GetName()) {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	var out []Finding
	for _, p := range pods {
		out = append(out, e.pod(p, s.minReady)...)
	}
	return out
}

// ownedBy goes by uid; where a uid is not known, by kind and name.
func ownedBy(o metav1.Object, uid types.UID, kind, name string) bool {
	for _, r := range o.GetOwnerReferences() {
		if uid != "" && r.UID == uid || uid == "" && r.Kind == kind && r.Name == name {
			return true
		}
	}
	return false
}

// alike keeps one of the findings that say the same of several pods.
func alike(findings []Finding) []Finding {
	var out []Finding
	for _, f := range findings {
		i := slices.IndexFunc(out, func(x Finding) bool { return sameStory(x, f) })
		if i < 0 {
			out = append(out, f)
			continue
		}
		out[i].More++
	}
	return out
}

// sameStory leaves out what differs between pods with one trouble: their names,
// which stand in messages too, and times.
func sameStory(a, b Finding) bool {
	return a.State == b.State && a.Remedy == b.Remedy && len(a.Because) == 0 && len(b.Because) == 0 &&
		withoutPod(a.Detail) == withoutPod(b.Detail)
}

func deploymentCondition(st appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range st.Conditions {
		if st.Conditions[i].Type == t {
			return &st.Conditions[i]
		}
	}
	return nil
}
