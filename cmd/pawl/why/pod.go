package why

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// pod is empty when the pod does what it is there for: it runs and is ready, and
// has been for minReady, or it ended well.
func (e explainer) pod(p *corev1.Pod, minReady time.Duration) []Finding {
	f := Finding{Object: "Pod " + p.Name}
	switch {
	case p.DeletionTimestamp != nil:
		e.ending(p, &f)
	case p.Status.Phase == corev1.PodSucceeded:
		return nil
	case p.Status.Phase == corev1.PodFailed:
		e.failed(p, &f)
	case e.unplaced(p, &f):
	case e.unreported(p, &f):
	default:
		if found := e.containers(p); len(found) > 0 {
			return found
		}
		if !e.unready(p, minReady, &f) {
			return nil
		}
	}
	return []Finding{f}
}

func (e explainer) ending(p *corev1.Pod, f *Finding) {
	grace := time.Duration(ptr.Deref(p.DeletionGracePeriodSeconds, 0)) * time.Second
	since := p.DeletionTimestamp.Add(-grace)
	f.State, f.Since = "is being stopped", &since
	if left := p.DeletionTimestamp.Sub(e.now); left > 0 {
		f.Detail = "it is killed in " + human(left) + " at the latest"
	} else if n := e.silent(p.Spec.NodeName); n != nil {
		f.Because = []Finding{*n}
	}
}

func (e explainer) failed(p *corev1.Pod, f *Finding) {
	f.State = "failed"
	if p.Status.Reason != "" {
		f.State += ": " + p.Status.Reason
	}
	f.Detail = p.Status.Message
	for _, s := range p.Status.ContainerStatuses {
		t := s.State.Terminated
		if t == nil || t.ExitCode == 0 {
			continue
		}
		f.Since = at(t.FinishedAt)
		if f.Detail == "" {
			f.Detail = fmt.Sprintf("container %s ended with exit code %d", s.Name, t.ExitCode) + says(t)
		}
		f.Remedy = "see what it said: pawl logs " + p.Name + inNamespace(p.Namespace) + " -c " + s.Name
		break
	}
}

func (e explainer) unplaced(p *corev1.Pod, f *Finding) bool {
	c := condition(p, corev1.PodScheduled)
	if c == nil || c.Status == corev1.ConditionTrue || p.Spec.NodeName != "" && c.Reason != corev1.PodReasonUnschedulable {
		return false
	}
	f.State, f.Since, f.Detail = "no node takes it", at(c.LastTransitionTime), c.Message
	switch {
	case c.Reason == corev1.PodReasonSchedulingGated:
		f.State, f.Remedy = "held back by spec.schedulingGates", "take the gates out of the manifest to let it start"
	case strings.Contains(c.Message, "Insufficient"):
		f.Remedy = "ask for less in resources.requests, or make room on a node"
	case strings.Contains(c.Message, "node affinity/selector"):
		f.Remedy = "spec.nodeSelector names labels that no node has; see: pawl get nodes --show-labels"
	case strings.Contains(c.Message, "free ports"):
		f.Remedy = "another pod holds the host port; change one of the two"
	case strings.Contains(c.Message, "no nodes available"), strings.Contains(c.Message, "not-ready"):
		f.Remedy = "see which nodes are there: pawl get nodes"
	}
	return true
}

// unreported: the pod is assigned, and its node has said nothing of it yet.
func (e explainer) unreported(p *corev1.Pod, f *Finding) bool {
	n := e.silent(p.Spec.NodeName)
	if n == nil && (p.Status.Phase != "" && p.Status.Phase != corev1.PodPending || len(p.Status.ContainerStatuses)+len(p.Status.InitContainerStatuses) > 0) {
		return false
	}
	f.State, f.Since = "its node "+p.Spec.NodeName+" has not said anything of it yet", at(p.CreationTimestamp)
	if p.Spec.NodeName == "" {
		f.State = "no node was chosen yet"
	}
	if c := condition(p, corev1.PodScheduled); c != nil && !c.LastTransitionTime.IsZero() {
		f.Since = at(c.LastTransitionTime)
	}
	if n != nil {
		f.State, f.Since = "what it does is not known", n.Since
		f.Because = []Finding{*n}
	}
	return true
}

// unready: everything runs, and still the pod is not ready or not yet for long enough.
func (e explainer) unready(p *corev1.Pod, minReady time.Duration, f *Finding) bool {
	c := condition(p, corev1.PodReady)
	switch {
	case c == nil:
		return false
	case c.Status != corev1.ConditionTrue:
		f.State, f.Since, f.Detail = "not ready", at(c.LastTransitionTime), c.Message
		return true
	}
	until := c.LastTransitionTime.Add(minReady)
	if !e.now.Before(until) {
		return false
	}
	f.State, f.Since = "ready", at(c.LastTransitionTime)
	f.Detail = "it counts as available in " + human(until.Sub(e.now)) + " (minReadySeconds)"
	return true
}

func condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func inNamespace(namespace string) string {
	if namespace == "" || namespace == "default" {
		return ""
	}
	return " -n " + namespace
}

// podName is where messages name the pod: pod=web-x_default(uid).
var podName = regexp.MustCompile(`pod=\S+`)

func withoutPod(message string) string { return podName.ReplaceAllString(message, "") }
