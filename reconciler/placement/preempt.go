package placement

import (
	"cmp"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// What Kubernetes' scheduler says when it ends no pod for another.
const (
	noPolicy   = "not eligible due to preemptionPolicy=Never."
	noWait     = "not eligible due to a terminating pod on the nominated node."
	whyNoHelp  = "Preemption is not helpful for scheduling"
	whyNoOne   = "No preemption victims found for incoming pod"
	enoughRoom = 100 // how many nodes with victims are compared, at least
)

// A Room is a node where there will be room for a pod.
type Room struct {
	Node    schema.NodeName
	Victims []*corev1.Pod // that must end first; none: those that are ending suffice
}

// MakeRoom finds the node where the fewest and least important pods would have
// to end for a pod that no node takes, as err of Place says. Pods that are
// ending already count as gone, and while that is enough on a node, best the one
// that the pod was promised before, no other is ended. It is not ok when ending
// pods of a lower priority does not help, or the pod may not have it; err then
// says why.
func (c *Cluster) MakeRoom(p *corev1.Pod, promised schema.NodeName, err error) (room Room, ok bool) {
	u := new(Unfit)
	if !errors.As(err, &u) || u.Nodes == 0 {
		return Room{}, false
	}
	a := c.ask(p)
	if n := c.awaited(a, promised, u); n != nil {
		u.Preemption = noWait
		return Room{Node: n.name}, true
	}
	if p.Spec.PreemptionPolicy != nil && *p.Spec.PreemptionPolicy == corev1.PreemptNever {
		u.Preemption = noPolicy
		return Room{}, false
	}
	var best *plan
	if c.outranks(priority(p)) {
		best = c.cheapest(a, u)
	}
	if best == nil {
		u.Preemption = counted(u.Nodes, noVictims(u))
		return Room{}, false
	}
	u.Preemption = noWait // as it will be at once
	room.Node = best.node.name
	for _, h := range best.victims {
		room.Victims = append(room.Victims, h.pod)
	}
	return room, true
}

func noVictims(u *Unfit) map[string]int {
	reasons := map[string]int{}
	if n := len(u.movable); n > 0 {
		reasons[whyNoOne] = n
	}
	if n := u.Nodes - len(u.movable); n > 0 {
		reasons[whyNoHelp] = n
	}
	return reasons
}

// outranks says whether any pod could be ended for one of that priority.
func (c *Cluster) outranks(own int32) bool {
	for other := range c.priorities {
		if other < own {
			return true
		}
	}
	return false
}

// awaited is a node that can take the pod once the pods that are ending there
// are gone: the promised one, or else the first by name.
func (c *Cluster) awaited(a *ask, promised schema.NodeName, u *Unfit) *node {
	awaits := func(n *node) bool {
		if n.ending == 0 {
			return false
		}
		ending := n.which(isEnding)
		return n.couldHaveRoom(a.needs, ending) && c.takesWithout(n, a, ending)
	}
	if n := c.nodes[promised]; n != nil && slices.Contains(u.movable, n) && awaits(n) {
		return n
	}
	if i := slices.IndexFunc(u.movable, awaits); i >= 0 {
		return u.movable[i]
	}
	return nil
}

func isEnding(h *held) bool { return h.ending }

// couldHaveRoom is a first look, which is cheap: whether there would be cpu,
// memory and a place if some pods were gone.
func (n *node) couldHaveRoom(asks resources, gone []*held) bool {
	left := resources{cpu: n.holds.cpu, memory: n.holds.memory, pods: n.holds.pods}
	for _, h := range gone {
		left.cpu -= int64(h.count) * h.asks.cpu
		left.memory -= int64(h.count) * h.asks.memory
		left.pods -= int64(h.count) * h.asks.pods
	}
	asks.other = nil
	return left.leaves(asks, n.offers)
}

// A plan is who would have to go from one node.
type plan struct {
	node    *node
	victims []*held // the most important first
}

// cheapest compares the nodes by what Kubernetes minds most: the highest
// priority among the victims, the sum of their priorities, their number, and how
// long the most important of them have run.
func (c *Cluster) cheapest(a *ask, u *Unfit) *plan {
	var best *plan
	found := 0
	for _, n := range u.movable {
		p := c.planOn(n, a)
		if p == nil {
			continue
		}
		if best == nil || p.compare(best) < 0 {
			best = p
		}
		if found++; found >= max(enoughRoom, u.Nodes/10) {
			break
		}
	}
	return best
}

func (p *plan) compare(o *plan) int {
	return cmp.Or(
		cmp.Compare(priority(p.victims[0].pod), priority(o.victims[0].pod)),
		cmp.Compare(p.sum(), o.sum()),
		cmp.Compare(len(p.victims), len(o.victims)),
		o.victims[0].pod.CreationTimestamp.Compare(p.victims[0].pod.CreationTimestamp.Time), // the youngest go first
		cmp.Compare(p.node.name, o.node.name),
	)
}

// sum counts a victim of the lowest priority too.
func (p *plan) sum() int64 {
	var sum int64
	for _, h := range p.victims {
		sum += int64(priority(h.pod)) + 1<<31
	}
	return sum
}

// planOn finds the fewest pods of a node that would have to end: it lets all go
// that are less important, and takes back whom it can, the most important first.
// It is nil when that does not help.
func (c *Cluster) planOn(n *node, a *ask) *plan {
	own := priority(a.pod)
	lesser := n.which(func(h *held) bool { return h.evictable && !h.ending && priority(h.pod) < own })
	ending := n.which(isEnding)
	if len(lesser) == 0 || !n.couldHaveRoom(a.needs, slices.Concat(lesser, ending)) {
		return nil
	}
	slices.SortFunc(lesser, func(x, y *held) int {
		return cmp.Or(
			cmp.Compare(priority(y.pod), priority(x.pod)),
			x.pod.CreationTimestamp.Compare(y.pod.CreationTimestamp.Time),
			compareIDs(idOf(x.pod), idOf(y.pod)),
		)
	})
	p := &plan{node: n}
	c.without(n, ending, func() {
		c.without(n, lesser, func() {
			if !n.takes(a) {
				return
			}
			for _, h := range lesser {
				c.put(n, h, h.count)
				if n.takes(a) {
					continue
				}
				c.put(n, h, -h.count)
				p.victims = append(p.victims, h)
			}
			for _, h := range lesser { // without puts back all of them
				if !slices.Contains(p.victims, h) {
					c.put(n, h, -h.count)
				}
			}
		})
	})
	if len(p.victims) == 0 {
		return nil
	}
	return p
}

func (c *Cluster) takesWithout(n *node, a *ask, gone []*held) (takes bool) {
	c.without(n, gone, func() { takes = n.takes(a) })
	return takes
}

// without calls f while some pods are not on their node.
func (c *Cluster) without(n *node, pods []*held, f func()) {
	for _, h := range pods {
		c.put(n, h, -h.count)
	}
	f()
	for _, h := range pods {
		c.put(n, h, h.count)
	}
}
