package plan

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// wanted is a pod that has no node yet.
type wanted struct {
	pod    *corev1.Pod // complete but for spec.nodeName and status; no copy is shared
	record *corev1.Pod // as Plan recorded it before; nil: it is new
	about  schema.ObjectKey
	event  string         // when it is assigned
	told   string         // the event's message, without the node
	bare   bool           // its name is the repository's, not one of Plan's
	asked  corev1.PodSpec // as it was before it was given a priority and a node

	// The keys that a pod of the same name left behind when it went.
	freed  schema.NodeName // its assignment, "": none
	forget bool            // its report
}

// assign writes the assignment. A record of the pod goes before it, so that
// nothing stands in the way of its node's report.
func (o *outcome) assign(w *wanted, name schema.NodeName) {
	if w.freed != "" && w.freed != name {
		o.placed = append(o.placed, w.unassign())
	}
	switch {
	case w.forget:
		o.cleared = append(o.cleared, w.delete("gone from its node"))
	case w.record != nil:
		o.cleared = append(o.cleared, w.delete("it gets a node"))
	}
	c := Change{
		Assign: &schema.Assignment{Node: name, Pod: *w.pod},
		About:  w.about, UID: w.pod.UID, Type: corev1.EventTypeNormal, Event: w.event, Message: w.told,
	}
	if w.event == "Scheduled" {
		c.Message = assignedPod(podKey(w.pod), name)
	}
	o.placed = append(o.placed, c)
}

// pend records that no node takes the pod, when that is news. While no node is
// known at all a bare pod is not recorded: after the store was lost, its node may
// be about to report it under that very key.
func (o *outcome) pend(w *wanted, why string, promised schema.NodeName, noNodes bool, now time.Time) {
	key := objectKey(podKey(w.pod))
	o.pending[key] = why
	if w.freed != "" {
		o.placed = append(o.placed, w.unassign())
	}
	if noNodes && w.bare && w.record == nil {
		if w.forget {
			o.placed = append(o.placed, w.delete("gone from its node"))
		}
		o.unrecorded = true
		return
	}
	since := stamp(now)
	if w.record != nil {
		old := scheduled(w.record)
		if w.record.UID == w.pod.UID && old.Message == why && w.record.Status.NominatedNodeName == string(promised) {
			return
		}
		since = old.LastTransitionTime
	}
	p := &PendingPod{Pod: w.pod.DeepCopy()}
	p.Status = corev1.PodStatus{
		Phase: corev1.PodPending, NominatedNodeName: string(promised),
		Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
			Message: why, LastTransitionTime: since,
		}},
	}
	c := Change{Put: p, About: key, UID: w.pod.UID, Type: corev1.EventTypeWarning, Event: "FailedScheduling", Message: why}
	if w.record == nil && !w.bare {
		c.Owner = w.about
	}
	o.placed = append(o.placed, c)
}

// scheduled is what a record says of why its pod has no node.
func scheduled(p *corev1.Pod) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c
		}
	}
	return corev1.PodCondition{}
}

func (w *wanted) unassign() Change {
	return Change{
		Unassign: &Unassign{Node: w.freed, Pod: podKey(w.pod)}, About: w.about,
		Message: "gone from node " + string(w.freed),
	}
}

func (w *wanted) delete(why string) Change {
	k := objectKey(podKey(w.pod))
	return Change{Delete: &k, About: w.about, Message: why}
}
