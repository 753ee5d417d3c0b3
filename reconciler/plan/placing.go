package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// placing is the finding of nodes for the pods of all queues. What it does to
// the accounts of the nodes is so only once it is written, and is undone.
type placing struct {
	p       *Planner
	turns   []*turn
	placed  map[*corev1.Pod]*turn
	victims []*corev1.Pod
	version int // of the accounts: how often they were changed
	undo    []func()
}

// turn is one pod's.
type turn struct {
	root     *root
	want     *wanted
	seen     int             // the version it was last tried at; -1: not yet
	promised schema.NodeName // where there was to be room for it; "": nowhere
	placed   schema.NodeName // "": it has no node
	room     schema.NodeName // where there will be room for it; "": nowhere
	reserved bool            // that room is on the node's account
	why      string          // it has no node
}

// place finds nodes for the pods of all queues: the most important choose first,
// then who has waited longest, and of those the first by name. It returns the
// roots concerned. If pods have to end for others, their roots have been looked
// at again, and all is to be placed again.
func (p *Planner) place(looked []schema.ObjectKey, now time.Time) (concerned []schema.ObjectKey, again bool) {
	x := &placing{p: p, placed: map[*corev1.Pod]*turn{}}
	x.markEnding(looked)
	for _, k := range sortedKeys(p.queue) {
		r := p.roots[k]
		r.out.cleared, r.out.placed, r.out.unrecorded = nil, nil, false
		r.out.pending = map[schema.ObjectKey]string{}
		for _, w := range r.out.queue {
			x.enter(r, w)
		}
		looked = append(looked, k)
	}
	x.run()
	for _, t := range x.turns {
		t.promised = t.room
		x.free(t)
		if t.placed != "" {
			x.p.room.Release(t.placed, t.want.pod)
		}
	}
	for i := len(x.undo) - 1; i >= 0; i-- {
		x.undo[i]()
	}
	if len(x.victims) > 0 {
		looked, again = append(looked, x.dismiss(now)...), true
	} else {
		x.tell(now)
	}
	sortKeys(looked)
	return slices.Compact(looked), again
}

// markEnding counts the pods that the roots are about to end as ending, as they
// will be when the next plan is made.
func (x *placing) markEnding(looked []schema.ObjectKey) {
	for _, k := range looked {
		r := x.p.roots[k]
		if r == nil {
			continue
		}
		for _, c := range r.out.first {
			if c.Assign != nil && c.Assign.Pod.DeletionTimestamp != nil {
				x.end(c.Assign.Node, &c.Assign.Pod)
			}
		}
	}
}

func (x *placing) end(name schema.NodeName, pod *corev1.Pod) {
	if x.p.room.End(name, pod, true) {
		x.undo = append(x.undo, func() { x.p.room.End(name, pod, false) })
	}
}

// enter puts a pod among those that want a node, as it was when it was made. One
// whose class is not known waits for that.
func (x *placing) enter(r *root, w *wanted) {
	w.pod.Spec.NodeName, w.pod.Spec.Priority = w.asked.NodeName, w.asked.Priority
	w.pod.Spec.PriorityClassName, w.pod.Spec.PreemptionPolicy = w.asked.PriorityClassName, w.asked.PreemptionPolicy
	t := &turn{root: r, want: w, seen: -1, promised: x.p.promised[podKey(w.pod)]}
	if t.promised == "" && w.record != nil {
		t.promised = schema.NodeName(w.record.Status.NominatedNodeName)
	}
	if err := x.p.prioritize(&w.pod.Spec); err != nil {
		t.why, t.seen = fmt.Sprintf("pods %q is forbidden: %v", w.pod.Name, err), never
	}
	x.turns = append(x.turns, t)
}

// never is a version that a turn does not wait for: it cannot be tried.
const never = -2

// run tries every pod, and again those that found nothing while others changed
// what they could find: a pod that has a node may be the one that another wants
// to be near, and everybody's reason is to be true in the end. Room is kept from
// those who come later only: the next plan, too, will ask the first one first.
func (x *placing) run() {
	slices.SortStableFunc(x.turns, func(a, b *turn) int {
		return cmp.Or(
			cmp.Compare(rank(b.want.pod), rank(a.want.pod)),
			a.want.pod.CreationTimestamp.Compare(b.want.pod.CreationTimestamp.Time),
			comparePodKeys(podKey(a.want.pod), podKey(b.want.pod)),
		)
	})
	for changed, rounds := true, 0; changed && rounds <= len(x.turns); rounds++ {
		changed = false
		for _, t := range x.turns {
			x.free(t)
		}
		for _, t := range x.turns {
			switch {
			case t.placed != "" || t.seen == never:
			case t.seen == x.version:
				x.reserve(t, t.room)
			default:
				before := x.version
				x.try(t)
				changed = changed || x.version != before
				t.seen = x.version
			}
		}
	}
}

func rank(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// try finds a node for a pod, or where there will be room for it.
func (x *placing) try(t *turn) {
	was := t.room
	t.room, t.why = "", ""
	for {
		err := x.put(t)
		if err == nil {
			break
		}
		again := !x.p.keep && x.makeRoom(t, cmp.Or(t.room, was, t.promised), err)
		if t.why = err.Error(); !again {
			break
		}
		x.free(t)
	}
	if t.room != was {
		x.version++
	}
}

// put finds a node for a pod, for which nothing is reserved.
func (x *placing) put(t *turn) error {
	pod := t.want.pod
	name, err := x.p.room.Place(pod)
	if err != nil {
		return err
	}
	t.placed, t.room, t.why = name, "", ""
	pod.Spec.NodeName = string(name)
	x.p.room.Hold(name, pod, true)
	x.placed[pod] = t
	x.version++
	return nil
}

// takeBack is for a pod that found a node before a more important one that wants
// the room: nobody was told yet.
func (x *placing) takeBack(t *turn) {
	x.p.room.Release(t.placed, t.want.pod)
	delete(x.placed, t.want.pod)
	t.placed, t.seen = "", -1
	t.want.pod.Spec.NodeName = t.want.asked.NodeName
}

// reserve keeps room for a pod on a node; "": on none.
func (x *placing) reserve(t *turn, name schema.NodeName) {
	if t.room = name; name != "" {
		x.p.room.Reserve(name, t.want.pod, 1)
		t.reserved = true
	}
}

// free takes off the account what is reserved for a pod.
func (x *placing) free(t *turn) {
	if t.reserved {
		x.p.room.Reserve(t.room, t.want.pod, -1)
		t.reserved = false
	}
}

// makeRoom reserves room for a pod where others have to end for it, or end
// already. It returns whether some did not even begin, so that there may be room
// at once.
func (x *placing) makeRoom(t *turn, promised schema.NodeName, err error) (atOnce bool) {
	r, ok := x.p.room.MakeRoom(t.want.pod, promised, err)
	if !ok {
		t.room = ""
		return false
	}
	x.reserve(t, r.Node)
	for _, v := range r.Victims {
		x.version++
		if other := x.placed[v]; other != nil {
			x.takeBack(other)
			atOnce = true
			continue
		}
		k := podKey(v)
		x.p.evict[k] = eviction{uid: v.UID, node: r.Node, message: "Preempted by pod " + string(t.want.pod.UID) + " on node " + string(r.Node)}
		x.p.promised[podKey(t.want.pod)] = r.Node
		x.end(r.Node, v)
		x.victims = append(x.victims, v)
	}
	return atOnce
}

// dismiss has the roots of the victims end them.
func (x *placing) dismiss(now time.Time) []schema.ObjectKey {
	var roots []schema.ObjectKey
	for _, v := range x.victims {
		roots = append(roots, x.p.pods[podKey(v)].root)
	}
	sortKeys(roots)
	roots = slices.Compact(roots)
	for _, k := range roots {
		x.p.lookAt(k, now)
	}
	return roots
}

// tell has the outcome written.
func (x *placing) tell(now time.Time) {
	none := x.p.room.Nodes() == 0
	for _, t := range x.turns {
		if t.placed != "" {
			t.root.out.assign(t.want, t.placed)
		} else {
			t.root.out.pend(t.want, t.why, t.promised, none, now)
		}
	}
}
