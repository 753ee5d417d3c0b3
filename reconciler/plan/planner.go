package plan

import (
	"cmp"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/pawl-project/pawl/reconciler/placement"
	"github.com/pawl-project/pawl/schema"
)

// Plan decides what to write so that the world becomes what is desired.
func Plan(w *World, now time.Time) Result { return NewPlanner(w).Plan(now) }

// A Planner gives the same plans as Plan, and is told what changed in the world
// instead of being shown all of it: its work is proportional to that. It holds
// on to the objects it is given and changes none of them. It takes nothing for
// granted: what it plans is so only once the caller, having written it, sets it
// here too. A Planner is for one goroutine.
//
// The same changes told to it in any order give the same plan.
type Planner struct {
	roots map[schema.ObjectKey]*root
	pods  map[schema.PodKey]*entry
	sets  map[schema.ObjectKey]schema.ObjectKey // ReplicaSet made by Plan → its root
	room  *placement.Cluster
	repel map[schema.NodeName][]corev1.Taint // that drive pods away, of the nodes that have any
	ranks map[string]*schedulingv1.PriorityClass
	// accounts are the ServiceAccounts in the repository.
	accounts map[schema.ObjectKey]*corev1.ServiceAccount
	keep     bool // World.KeepAll

	dirty map[schema.ObjectKey]bool      // roots to look at again
	timed map[schema.ObjectKey]time.Time // roots to look at again by then
	queue map[schema.ObjectKey]bool      // roots with pods that have no node
	moved bool                           // room on the nodes is not what it was
	loose map[schema.ObjectKey]bool      // roots that are not settled

	// Of the plan in the making:
	made     map[schema.PodKey]bool            // names given to pods
	evict    map[schema.PodKey]eviction        // pods that end for more important ones
	promised map[schema.PodKey]schema.NodeName // and where those will find room
}

// NewPlanner starts from a whole world, which it does not keep.
func NewPlanner(w *World) *Planner {
	p := &Planner{
		roots: make(map[schema.ObjectKey]*root, len(w.Desired)),
		pods:  make(map[schema.PodKey]*entry, len(w.Reports)),
		sets:  make(map[schema.ObjectKey]schema.ObjectKey, len(w.ReplicaSets)),
		room:  placement.NewCluster(),
		repel: map[schema.NodeName][]corev1.Taint{},
		ranks: map[string]*schedulingv1.PriorityClass{}, accounts: map[schema.ObjectKey]*corev1.ServiceAccount{},
		keep:  w.KeepAll,
		dirty: map[schema.ObjectKey]bool{},
		timed: map[schema.ObjectKey]time.Time{},
		queue: map[schema.ObjectKey]bool{},
		loose: map[schema.ObjectKey]bool{},
	}
	for k, o := range w.Desired {
		p.SetDesired(k, o)
	}
	for k, o := range w.Status {
		p.SetStatus(k, o)
	}
	for k, rs := range w.ReplicaSets {
		p.SetReplicaSet(k, rs)
	}
	for name, pods := range w.Assignments {
		for k, a := range pods {
			p.SetAssignment(name, k, &a)
		}
	}
	for k, r := range w.Reports {
		p.SetReport(k, &r)
	}
	for name, o := range w.Nodes {
		p.SetNode(name, o)
	}
	return p
}

// KeepAll says whether Desired may lack objects (World.KeepAll).
func (p *Planner) KeepAll(keep bool) {
	if p.keep == keep {
		return
	}
	p.keep = keep
	for k, r := range p.roots {
		if r.desired == nil {
			p.dirty[k] = true
		}
	}
	p.moved = true // nothing is evicted while Desired may lack what decides it
}

// SetDesired tells of an object of pawl-desired; nil: it is not there. Kinds
// that neither make pods nor say anything of them are ignored.
func (p *Planner) SetDesired(k schema.ObjectKey, o schema.Object) {
	switch k.Kind {
	case schema.Pods, schema.ReplicaSets, schema.ReplicationControllers, schema.Deployments:
	case schema.Namespaces:
		p.setNamespace(k.Name, o)
		return
	case schema.PriorityClasses:
		p.setPriorityClass(k.Name, o)
		return
	case schema.ServiceAccounts:
		p.setAccount(k, o)
		return
	default:
		return
	}
	p.root(k).desired = o
	p.touch(k)
	if owner, ok := p.sets[k]; ok {
		p.touch(owner) // its ReplicaSet's name now belongs to the repository, or no more
	}
	if e := p.pods[schema.PodKey{Namespace: k.Namespace, Name: k.Name}]; e != nil && e.rooted && k.Kind == schema.Pods {
		p.touch(e.root) // likewise its pod's name
	}
	for _, other := range p.claims(k) {
		p.touch(other)
	}
}

// SetStatus tells of a status that Plan wrote; nil: there is none.
func (p *Planner) SetStatus(k schema.ObjectKey, o schema.Object) {
	switch k.Kind {
	case schema.ReplicaSets, schema.ReplicationControllers, schema.Deployments:
	default:
		return
	}
	p.root(k).status = o
	p.touch(k)
	for _, other := range p.claims(k) {
		p.touch(other)
	}
}

// SetReplicaSet tells of a ReplicaSet that Plan made for a Deployment; nil: it
// is not there.
func (p *Planner) SetReplicaSet(k schema.ObjectKey, rs *appsv1.ReplicaSet) {
	if old, ok := p.sets[k]; ok {
		delete(p.root(old).sets, k)
		delete(p.sets, k)
		p.touch(old)
	}
	if rs == nil {
		return
	}
	owner, ok := rootOfSet(rs)
	if !ok {
		return
	}
	p.sets[k] = owner
	p.root(owner).sets[k] = rs
	p.touch(owner)
}

// SetAssignment tells of an assignment; nil: it is not there.
func (p *Planner) SetAssignment(name schema.NodeName, k schema.PodKey, a *schema.Assignment) {
	e := p.entry(k)
	if a == nil {
		delete(e.assigned, name)
	} else {
		if e.assigned == nil {
			e.assigned = map[schema.NodeName]*schema.Assignment{}
		}
		e.assigned[name] = a
	}
	p.changed(e)
}

// SetReport tells of a pod's report; nil: there is none.
func (p *Planner) SetReport(k schema.PodKey, r *schema.PodReport) {
	e := p.entry(k)
	e.report, e.record = nil, nil
	switch {
	case r == nil:
	case r.Node == "":
		e.record = r
	default:
		e.report = r
	}
	p.changed(e)
}

// SetNode tells of a node; nil: nothing is known of it.
func (p *Planner) SetNode(name schema.NodeName, o *corev1.Node) {
	p.room.Describe(name, o)
	p.moved = true
	p.setTaints(name, o)
}

// Plan decides what to write now. The roots for which it wants something
// written are looked at again by the next Plan, whether it was written or not.
func (p *Planner) Plan(now time.Time) Result {
	for k, at := range p.timed {
		if !now.Before(at) {
			p.dirty[k] = true
		}
	}
	p.made, p.evict, p.promised = map[schema.PodKey]bool{}, map[schema.PodKey]eviction{}, map[schema.PodKey]schema.NodeName{}
	looked := sortedKeys(p.dirty)
	queued := false
	for _, k := range looked {
		queued = p.lookAt(k, now) || queued
	}
	for again := queued || p.moved; again; {
		looked, again = p.place(looked, now)
	}
	return p.conclude(looked)
}

// lookAt looks at one root anew, and says whether that concerns the queue: it
// has pods without a node, or ends some.
func (p *Planner) lookAt(k schema.ObjectKey, now time.Time) bool {
	r := p.roots[k]
	if r == nil {
		return false
	}
	for _, name := range r.out.made {
		delete(p.made, name) // by an earlier look in the same plan
	}
	r.out = p.look(r, now)
	setIf(p.queue, k, len(r.out.queue) > 0)
	setIf(p.loose, k, !r.out.settled)
	if r.out.recheck.IsZero() {
		delete(p.timed, k)
	} else {
		p.timed[k] = r.out.recheck
	}
	ends := slices.ContainsFunc(r.out.first, func(c Change) bool { return c.Assign != nil && c.Assign.Pod.DeletionTimestamp != nil })
	return len(r.out.queue) > 0 || ends
}

// conclude gathers what the roots want, and forgets the roots that are done with.
func (p *Planner) conclude(looked []schema.ObjectKey) Result {
	clear(p.dirty)
	p.moved = false
	var res Result
	for _, k := range looked {
		if r := p.roots[k]; r != nil {
			res.Changes = append(res.Changes, r.out.cleared...)
		}
	}
	for _, k := range looked {
		r := p.roots[k]
		if r == nil {
			continue
		}
		before := len(res.Changes) - len(r.out.cleared)
		res.Changes = append(res.Changes, r.out.first...)
		res.Changes = append(res.Changes, r.out.placed...)
		res.Changes = append(res.Changes, r.out.last...)
		if len(res.Changes) > before || r.out.unrecorded {
			p.dirty[k] = true
			continue
		}
		if r.empty() {
			p.forget(k)
		}
	}
	res.Waiting = map[schema.ObjectKey]string{}
	for k := range p.loose {
		maps.Copy(res.Waiting, p.roots[k].out.waiting)
		maps.Copy(res.Waiting, p.roots[k].out.pending)
	}
	for _, at := range p.timed {
		if res.Recheck.IsZero() || at.Before(res.Recheck) {
			res.Recheck = at
		}
	}
	res.Settled = len(res.Changes) == 0 && len(p.loose) == 0
	return res
}

func (p *Planner) forget(k schema.ObjectKey) {
	delete(p.roots, k)
	delete(p.timed, k)
	delete(p.queue, k)
	delete(p.loose, k)
}

func (p *Planner) touch(k schema.ObjectKey) { p.dirty[k] = true }

func (p *Planner) root(k schema.ObjectKey) *root {
	r := p.roots[k]
	if r == nil {
		r = &root{key: k, sets: map[schema.ObjectKey]*appsv1.ReplicaSet{}, pods: map[schema.PodKey]*entry{}}
		p.roots[k] = r
	}
	return r
}

// inGit says whether the repository holds an object of that name.
func (p *Planner) inGit(k schema.ObjectKey) bool {
	r := p.roots[k]
	return r != nil && r.desired != nil
}

// named says whether the repository holds an object of that name, or held one
// whose status is still in the store.
func (p *Planner) named(k schema.ObjectKey) bool {
	r := p.roots[k]
	return r != nil && (r.desired != nil || r.status != nil)
}

func setIf(m map[schema.ObjectKey]bool, k schema.ObjectKey, in bool) {
	if in {
		m[k] = true
	} else {
		delete(m, k)
	}
}

func sortedKeys[V any](m map[schema.ObjectKey]V) []schema.ObjectKey {
	keys := slices.Collect(maps.Keys(m))
	sortKeys(keys)
	return keys
}

func comparePodKeys(a, b schema.PodKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
