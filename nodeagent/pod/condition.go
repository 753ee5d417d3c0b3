package pod

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of conditions, as Kubernetes names them.
const (
	reasonUninitialized = "ContainersNotInitialized"
	reasonUnready       = "ContainersNotReady"
	reasonPodCompleted  = "PodCompleted"
	reasonPodFailed     = "PodFailed"
	reasonGates         = "ReadinessGatesNotReady"
)

// conditions answers for the pod as a whole, given its containers' statuses and
// its phase: the one that it comes to, as what is being stopped serves no more.
func (v *view) conditions(s corev1.PodStatus, phase corev1.PodPhase) []corev1.PodCondition {
	s.Phase = phase
	initialized := v.initializedCondition(s)
	containers := v.readyCondition(s)
	ready := containers
	ready.Type = corev1.PodReady
	if gates := v.closedGates(); ready.Status == corev1.ConditionTrue && len(gates) > 0 {
		ready.Status, ready.Reason = corev1.ConditionFalse, reasonGates
		ready.Message = fmt.Sprintf("conditions not true: [%s]", strings.Join(gates, " "))
	}
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: verdict(v.seen.Sandbox.Ready)}
	scheduled := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}
	all := []corev1.PodCondition{sandbox, initialized, ready, containers, scheduled}
	for i := range all {
		all[i].LastTransitionTime = v.since(all[i])
		all[i].ObservedGeneration = v.want.Generation
	}
	return all
}

func verdict(yes bool) corev1.ConditionStatus {
	if yes {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

func (v *view) initializedCondition(s corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if s.Phase == corev1.PodSucceeded {
		c.Reason = reasonPodCompleted
	}
	if v.initialized() || terminal(s.Phase) && v.initializedBefore() {
		return c
	}
	var open []string
	for i := range v.want.Spec.InitContainers {
		if in := &v.want.Spec.InitContainers[i]; !v.through(in) {
			open = append(open, in.Name)
		}
	}
	c.Status, c.Reason = corev1.ConditionFalse, reasonUninitialized
	c.Message = fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(open, " "))
	return c
}

func (v *view) initializedBefore() bool {
	old := v.condition(corev1.PodInitialized)
	return old != nil && old.Status == corev1.ConditionTrue
}

func (v *view) readyCondition(s corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}
	var unready []string
	for _, cs := range s.ContainerStatuses {
		if !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	for i, cs := range s.InitContainerStatuses {
		if sidecar(&v.want.Spec.InitContainers[i]) && !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	switch {
	case s.Phase == corev1.PodSucceeded:
		c.Status, c.Reason = corev1.ConditionFalse, reasonPodCompleted
	case s.Phase == corev1.PodFailed:
		c.Status, c.Reason = corev1.ConditionFalse, reasonPodFailed
	case len(unready) > 0:
		c.Status, c.Reason = corev1.ConditionFalse, reasonUnready
		c.Message = fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	}
	return c
}

// closedGates lists the readiness gates of the spec whose condition is not true.
func (v *view) closedGates() (closed []string) {
	for _, g := range v.want.Spec.ReadinessGates {
		if c := v.condition(g.ConditionType); c == nil || c.Status != corev1.ConditionTrue {
			closed = append(closed, string(g.ConditionType))
		}
	}
	return closed
}

// condition is one condition as it was last reported; nil when it was not.
func (v *view) condition(t corev1.PodConditionType) *corev1.PodCondition {
	list := v.known.Previous.Conditions
	if i := slices.IndexFunc(list, func(c corev1.PodCondition) bool { return c.Type == t }); i >= 0 {
		return &list[i]
	}
	return nil
}

// since is when the condition came to its present status: as reported before, or
// as what is seen tells, so that an agent that lost its reports says the same.
func (v *view) since(c corev1.PodCondition) metav1.Time {
	if old := v.condition(c.Type); old != nil {
		if old.Status == c.Status {
			return old.LastTransitionTime
		}
		return metav1.NewTime(v.now)
	}
	t := v.startTime()
	yes := c.Status == corev1.ConditionTrue
	switch c.Type {
	case corev1.PodScheduled:
		if created := v.want.CreationTimestamp; !created.IsZero() {
			t = created.Time
		}
	case corev1.PodInitialized:
		if yes {
			t = v.latest(t, func(x Container) (time.Time, bool) { return x.FinishedAt, x.Init })
		}
	case corev1.PodReady, corev1.ContainersReady:
		if yes {
			t = v.latest(t, func(x Container) (time.Time, bool) { return x.StartedAt, x.State == ContainerRunning })
		}
	}
	return metav1.NewTime(t)
}

// latest is the latest of t and the times that pick names.
func (v *view) latest(t time.Time, pick func(Container) (time.Time, bool)) time.Time {
	for _, c := range v.seen.Containers {
		if x, ok := pick(c); ok && x.After(t) {
			t = x
		}
	}
	return t
}
