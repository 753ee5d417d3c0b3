package plan

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// entry is everything the store says under one pod's name.
type entry struct {
	key      schema.PodKey
	assigned map[schema.NodeName]*schema.Assignment
	report   *schema.PodReport // of a node
	record   *schema.PodReport // of Plan: no node has the pod yet

	// What follows from these:
	pods   []*pod          // one per node that has or should have it, by node name
	gone   schema.NodeName // the assignment to this node ends with the report Gone
	root   schema.ObjectKey
	rooted bool // false: something owns it that Pawl does not plan
}

// pod is one pod on one node, or on none yet. It is read-only once made.
type pod struct {
	node     schema.NodeName   // "": none yet
	obj      *corev1.Pod       // as assigned, or as reported when it is not
	status   *corev1.PodStatus // nil: its node has not reported it
	assigned bool
	ending   bool // has a deletionTimestamp
	surplus  bool // another node has the pod of this name
	fresh    bool // wanted by this plan only
}

func (p *pod) key() schema.PodKey { return podKey(p.obj) }

// finished: all its containers ended for good.
func (p *pod) finished() bool {
	return p.status != nil && (p.status.Phase == corev1.PodSucceeded || p.status.Phase == corev1.PodFailed)
}

func (p *pod) phase() corev1.PodPhase {
	if p.status == nil || p.status.Phase == "" {
		return corev1.PodPending
	}
	return p.status.Phase
}

// ready says whether the pod is ready, and since when.
func (p *pod) ready() (bool, time.Time) {
	if p.status == nil || p.ending {
		return false, time.Time{}
	}
	for _, c := range p.status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
		}
	}
	return false, time.Time{}
}

// available says whether the pod has been ready for long enough, and if it is
// ready but not yet for long enough, when it will be.
func (p *pod) available(minReady int32, now time.Time) (bool, time.Time) {
	ready, since := p.ready()
	if !ready {
		return false, time.Time{}
	}
	if at := since.Add(time.Duration(minReady) * time.Second); minReady > 0 && now.Before(at) {
		return false, at
	}
	return true, time.Time{}
}

func (p *Planner) entry(k schema.PodKey) *entry {
	e := p.pods[k]
	if e == nil {
		e = &entry{key: k}
		p.pods[k] = e
	}
	return e
}

// changed brings in line what follows from an entry.
func (p *Planner) changed(e *entry) {
	before := e.pods
	e.sort()
	if !sameRoom(before, e.pods) {
		p.account(before, false)
		p.account(e.pods, true)
		p.moved = true
	}

	from, was := e.root, e.rooted
	subject := e.subject()
	if subject == nil {
		delete(p.pods, e.key)
		e.rooted = false
	} else {
		e.root, e.rooted = rootOfPod(subject)
	}
	if was {
		p.touch(from)
		if !e.rooted || from != e.root {
			delete(p.root(from).pods, e.key)
		}
	}
	if e.rooted {
		p.root(e.root).pods[e.key] = e
		p.touch(e.root)
	}
	if own := objectKey(e.key); p.inGit(own) {
		p.touch(own) // the name a bare pod wants is taken, or free
	}
}

// account holds or releases room on the nodes for the pods that take it.
func (p *Planner) account(pods []*pod, hold bool) {
	for _, x := range pods {
		if !x.takesRoom() {
			continue
		}
		if hold {
			p.room.Hold(x.node, x.obj, x.evictable())
		} else {
			p.room.Release(x.node, x.obj)
		}
	}
}

func (p *pod) takesRoom() bool { return p.node != "" && !p.finished() }

// evictable says whether the pod may be ended for a more important one: it is
// one of Plan's, and nothing else is to be written about it.
func (p *pod) evictable() bool {
	_, own := rootOfPod(p.obj)
	return own && p.assigned && !p.ending && !p.surplus
}

// sameRoom says whether two states of an entry take the same room: the spec of
// one uid never changes.
func sameRoom(a, b []*pod) bool {
	return slices.EqualFunc(a, b, func(x, y *pod) bool {
		return x.node == y.node && x.obj.UID == y.obj.UID && x.takesRoom() == y.takesRoom() &&
			x.ending == y.ending && x.evictable() == y.evictable()
	})
}

// subject is the pod that decides where the entry belongs.
func (e *entry) subject() *corev1.Pod {
	switch {
	case e.winner() != nil:
		return e.winner().obj
	case len(e.pods) > 0:
		return e.pods[0].obj
	case e.report != nil:
		return &e.report.Pod
	case e.record != nil:
		return &e.record.Pod
	default:
		return nil
	}
}

// winner is the one pod of this name that is to live; nil: none is.
func (e *entry) winner() *pod {
	for _, p := range e.pods {
		if !p.ending && !p.surplus {
			return p
		}
	}
	return nil
}

// sort makes pods of what the store says, and finds the winner among them.
func (e *entry) sort() {
	e.pods, e.gone = nil, ""
	rep := e.report
	for _, name := range slices.Sorted(maps.Keys(e.assigned)) {
		a := e.assigned[name]
		p := &pod{node: name, obj: &a.Pod, assigned: true, ending: a.Pod.DeletionTimestamp != nil}
		if rep != nil && rep.Node == name && rep.Pod.UID == a.Pod.UID {
			if rep.Gone {
				e.gone = name
				continue
			}
			p.status = &rep.Pod.Status
		}
		e.pods = append(e.pods, p)
	}
	if rep != nil && !rep.Gone && e.assigned[rep.Node] == nil {
		e.pods = append(e.pods, &pod{node: rep.Node, obj: &rep.Pod, status: &rep.Pod.Status, ending: rep.Pod.DeletionTimestamp != nil})
	}
	if len(e.pods) == 0 && e.gone == "" && e.record != nil {
		e.pods = append(e.pods, &pod{obj: &e.record.Pod})
	}
	best := -1
	for i, p := range e.pods {
		if !p.ending && (best < 0 || p.standing() > e.pods[best].standing()) {
			best = i
		}
	}
	for i, p := range e.pods {
		p.surplus = !p.ending && i != best
	}
}

// standing says which of several pods of one name is to live: the one that was
// assigned and is known to be there; then one that runs though its assignment
// was lost; then one that was assigned. Of equals the first node has it.
func (p *pod) standing() int {
	switch {
	case p.assigned && p.status != nil:
		return 3
	case !p.assigned && p.phase() == corev1.PodRunning:
		return 2
	case p.assigned:
		return 1
	default:
		return 0
	}
}

// ended is the order to stop a pod.
func ended(p *pod, now time.Time) *schema.Assignment {
	a := asReported(p)
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if g := p.obj.Spec.TerminationGracePeriodSeconds; g != nil {
		grace = *g
	}
	at := stamp(now)
	a.Pod.DeletionTimestamp, a.Pod.DeletionGracePeriodSeconds = &at, &grace
	return a
}

// asReported is the order to have the pod that a node has.
func asReported(p *pod) *schema.Assignment {
	a := &schema.Assignment{Node: p.node, Pod: *p.obj.DeepCopy()}
	a.Pod.Status = corev1.PodStatus{}
	a.Pod.Spec.NodeName = string(p.node)
	return a
}
