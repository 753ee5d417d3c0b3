package why

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// node is empty when the node is ready and takes pods.
func (e explainer) node(n *corev1.Node) []Finding {
	if f := e.silent(n.Name); f != nil {
		return []Finding{*f}
	}
	if n.Spec.Unschedulable {
		return []Finding{{Object: "Node " + n.Name, State: "takes no new pods (it is cordoned)"}}
	}
	return nil
}

// silent says why a node is not ready; nil when it is, or is not known.
func (e explainer) silent(name string) *Finding {
	i := slices.IndexFunc(e.w.Nodes, func(n corev1.Node) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	for _, c := range e.w.Nodes[i].Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return &Finding{
				Object: "Node " + name, State: "not ready", Since: at(c.LastTransitionTime), Detail: c.Message,
				Remedy: "is the machine up, and pawld running on it?",
			}
		}
	}
	return nil
}

// events are a pod's, of a reason.
func (e explainer) events(p *corev1.Pod, reason string) (out []*corev1.Event) {
	for i := range e.w.Events {
		ev := &e.w.Events[i]
		about := ev.InvolvedObject
		if ev.Reason == reason && about.Kind == "Pod" && about.Name == p.Name && about.Namespace == p.Namespace && (about.UID == "" || about.UID == p.UID) {
			out = append(out, ev)
		}
	}
	return out
}

// newest is the event of a pod and a reason that was seen last; nil: there is none.
func (e explainer) newest(p *corev1.Pod, reason string) *corev1.Event {
	all := e.events(p, reason)
	if len(all) == 0 {
		return nil
	}
	return slices.MaxFunc(all, func(a, b *corev1.Event) int { return lastTime(a).Compare(lastTime(b)) })
}

// failures counts the events of a pod that tell of one failure, however the
// message goes on, and says when it was seen first and last.
func (e explainer) failures(p *corev1.Pod, message string) (n int, first, last time.Time) {
	for _, ev := range e.events(p, "Failed") {
		if !strings.HasPrefix(ev.Message, message) {
			continue
		}
		begun, seen := ev.FirstTimestamp.Time, lastTime(ev)
		if begun.IsZero() {
			begun = seen
		}
		if n == 0 || begun.Before(first) {
			first = begun
		}
		if seen.After(last) {
			last = seen
		}
		n += max(int(ev.Count), 1)
	}
	return n, first, last
}

// lastTime is when an event was last seen, whichever of its fields says so.
func lastTime(ev *corev1.Event) time.Time {
	switch {
	case ev.Series != nil:
		return ev.Series.LastObservedTime.Time
	case !ev.LastTimestamp.IsZero():
		return ev.LastTimestamp.Time
	case !ev.EventTime.IsZero():
		return ev.EventTime.Time
	default:
		return ev.CreationTimestamp.Time
	}
}

// maxFaults bounds how many faults of a refused commit are told.
const maxFaults = 3

// refused tells of the newest commit when it was refused: whatever it wanted of
// the object is not so.
func (e explainer) refused(s Subject) []Finding {
	if len(e.w.Revisions) == 0 {
		return nil
	}
	r := slices.MaxFunc(e.w.Revisions, func(a, b schema.RevisionRecord) int {
		return cmp.Or(a.Seen.Compare(b.Seen), cmp.Compare(a.Commit, b.Commit))
	})
	if r.Result != schema.RevisionRefused {
		return nil
	}
	f := Finding{
		Object: "Commit " + short(r.Commit), State: fmt.Sprintf("by %s was refused", r.Author), Since: &r.Seen,
		Detail: "what runs is what an earlier commit asks for",
		Remedy: "mend it and push again; all of its faults: pawl history " + short(r.Commit),
	}
	faults := about(s, r.Faults)
	for i, x := range faults {
		if i == maxFaults {
			f.Because = append(f.Because, Finding{Object: "and", State: fmt.Sprintf("%d more", len(faults)-i)})
			break
		}
		f.Because = append(f.Because, Finding{Object: "Fault", State: x.String()})
	}
	return []Finding{f}
}

// about picks the faults in the object itself; all of them where there is none.
func about(s Subject, faults []schema.Fault) []schema.Fault {
	var own []schema.Fault
	for _, f := range faults {
		if f.Object == s.String() {
			own = append(own, f)
		}
	}
	if len(own) == 0 {
		return faults
	}
	return own
}
