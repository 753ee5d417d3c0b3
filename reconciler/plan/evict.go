package plan

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/reconciler/placement"
	"github.com/pawl-project/pawl/schema"
)

// eviction is why a pod ends for another one.
type eviction struct {
	uid     types.UID
	node    schema.NodeName
	message string
}

// driven is the pod, or if it has to leave its node, the pod as ending, with
// the order to end it.
func (s *step) driven(p *pod) *pod {
	if p.ending || p.node == "" || p.finished() {
		return p
	}
	event, message := s.why(p)
	if event == "" {
		return p
	}
	s.end(p, objectKey(p.key()), event, message)
	leaving := *p
	leaving.ending = true
	return &leaving
}

// why a pod has to leave its node; "": it has not.
func (s *step) why(p *pod) (event, message string) {
	if e, ok := s.p.evict[p.key()]; ok && e.uid == p.obj.UID && e.node == p.node {
		return "Preempted", e.message
	}
	taints := s.p.repel[p.node]
	if len(taints) == 0 || s.r.desired == nil {
		return "", ""
	}
	since, there := s.since(p)
	at, evicts := placement.Evicts(taints, p.obj, since)
	switch {
	case !evicts:
		return "", ""
	case s.now.Before(at):
		if there {
			s.again(at)
		}
		return "", ""
	default:
		return "TaintManagerEviction", "Marking for deletion Pod " + p.key().String()
	}
}

// since is when a pod came to its node. One that its node has not spoken of yet
// is not there: what it bears for a time is not counted.
func (s *step) since(p *pod) (at time.Time, there bool) {
	switch {
	case p.status == nil:
		return s.now, false
	case p.status.StartTime != nil:
		return p.status.StartTime.Time, true
	default:
		return p.obj.CreationTimestamp.Time, true
	}
}

// setTaints takes over the taints that drive pods away, and has the pods of the
// node looked at when they changed.
func (p *Planner) setTaints(name schema.NodeName, o *corev1.Node) {
	var taints []corev1.Taint
	if o != nil {
		for _, t := range o.Spec.Taints {
			if t.Effect == corev1.TaintEffectNoExecute {
				taints = append(taints, t)
			}
		}
	}
	if slices.EqualFunc(taints, p.repel[name], sameTaint) {
		return
	}
	if p.repel[name] = taints; len(taints) == 0 {
		delete(p.repel, name)
	}
	for _, e := range p.pods {
		if e.rooted && slices.ContainsFunc(e.pods, func(x *pod) bool { return x.node == name }) {
			p.touch(e.root)
		}
	}
}

func sameTaint(a, b corev1.Taint) bool {
	return a.Key == b.Key && a.Value == b.Value && a.TimeAdded.Equal(b.TimeAdded)
}
