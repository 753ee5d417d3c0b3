package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// An Unfit says why no node takes a pod, in the words kubectl's users know. It
// wraps schema.ErrUnavailable: a node that changes or a pod that goes mends it.
type Unfit struct {
	Nodes      int            // how many were looked at
	Reasons    map[string]int // why not → on how many nodes
	Preemption string         // why ending other pods does not help; "": not looked at

	movable []*node // that only what their pods hold keeps from taking it
}

// Error is one line: 0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods.
func (u *Unfit) Error() string {
	if u.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	line := counted(u.Nodes, u.Reasons)
	if u.Preemption != "" {
		line += " preemption: " + u.Preemption
	}
	return line
}

func counted(nodes int, reasons map[string]int) string {
	parts := make([]string, 0, len(reasons))
	for why, n := range reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(parts, ", "))
}

// Unwrap makes errors.Is(err, schema.ErrUnavailable) true.
func (u *Unfit) Unwrap() error { return schema.ErrUnavailable }

// The reasons, as Kubernetes' scheduler words them.
const (
	whyUnschedulable = "node(s) were unschedulable"
	whyTaint         = "node(s) had untolerated taint {%s: %s}"
	whySelector      = "node(s) didn't match Pod's node affinity/selector"
	whyName          = "node(s) didn't match the requested node name"
	whyPorts         = "node(s) didn't have free ports for the requested pod ports"
	whyPods          = "Too many pods"
	whySpread        = "node(s) didn't match pod topology spread constraints"
	whyNoTopology    = "node(s) didn't match pod topology spread constraints (missing required label)"
	whyAffinity      = "node(s) didn't match pod affinity rules"
	whyAntiAffinity  = "node(s) didn't match pod anti-affinity rules"
	whyRefused       = "node(s) didn't satisfy existing pods anti-affinity rules"
)

// An ask is what a pod asks of a node, worked out for the cluster as it is. It
// follows the pods that come and go until the next one is made.
type ask struct {
	*kind
	pod    *corev1.Pod
	needs  resources
	weighs resources
	ports  []hostPort

	refusedBy []*tally // pods whose anti-affinity keeps it out of their domains
	likedBy   []liking
}

func (c *Cluster) ask(p *corev1.Pod) *ask {
	if l := c.layout(); l.cells > enoughCells {
		l.forget()
	}
	a := &ask{kind: c.kindOf(p), pod: p, needs: requests(p), ports: hostPorts(p)}
	a.weighs = weight(a.needs)
	a.hear(c)
	return a
}

// Place chooses the node for a pod: of those that can take it the one it and
// the others prefer, the least loaded of equals, counting the pod itself, and of
// those the first by name. A pod that names its node goes there whether the node
// is ready for others or not, once it fits, unless it would be driven away. The
// error is an *Unfit. Nobody's account changes: the caller Holds the pod on the
// node it takes.
func (c *Cluster) Place(p *corev1.Pod) (schema.NodeName, error) {
	a := c.ask(p)
	if best := c.best(a); best != nil {
		return best.name, nil
	}
	return "", c.unfit(a)
}

// takes says whether n, of those that fit, can take the pod as things are.
func (n *node) takes(a *ask) bool {
	if n.portTaken(a.ports) || !n.hasRoom(a.needs) {
		return false
	}
	if why, _ := a.must.refuses(n); why != "" {
		return false
	}
	why, _ := a.unwelcome(n)
	return why == ""
}

// unfit is why no node takes the pod.
func (c *Cluster) unfit(a *ask) *Unfit {
	l := c.layout()
	u := &Unfit{Nodes: len(l.nodes), Reasons: maps.Clone(a.whyNot(l, a.pod)), movable: make([]*node, 0, len(a.fits))}
	var reasons []string
	for _, n := range a.fits {
		var helpless bool
		reasons, helpless = n.refuses(a, reasons[:0])
		for _, why := range reasons {
			u.Reasons[why]++
		}
		if !helpless {
			u.movable = append(u.movable, n)
		}
	}
	return u
}

// refuses appends to no reasons why n, of those that fit, cannot take the pod:
// the first sort of reason that applies, and of what it has too little of,
// everything. It is helpless when no going of pods could help.
func (n *node) refuses(a *ask, none []string) (why []string, helpless bool) {
	if n.portTaken(a.ports) {
		return append(none, whyPorts), false
	}
	if why, helpless := n.lacks(a.needs, none); len(why) > 0 {
		return why, helpless
	}
	if why, helpless := a.must.refuses(n); why != "" {
		return append(none, why), helpless
	}
	if why, helpless := a.unwelcome(n); why != "" {
		return append(none, why), helpless
	}
	return none, false
}

// refusesAny is why the node would not take the pod even if it were empty.
func (n *node) refusesAny(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		if p.Spec.NodeName != string(n.name) {
			return whyName
		}
		if t := n.drivesAway(p); t != nil {
			return fmt.Sprintf(whyTaint, t.Key, t.Value)
		}
		return ""
	}
	if n.cordoned && !tolerated(p, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}) {
		return whyUnschedulable
	}
	if len(n.taints) > 0 {
		if t := n.forbids(p); t != nil {
			return fmt.Sprintf(whyTaint, t.Key, t.Value)
		}
	}
	if !n.selected(p) {
		return whySelector
	}
	return ""
}

func (n *node) portTaken(ports []hostPort) bool {
	for _, want := range ports {
		for held := range n.ports {
			if want.clashes(held) {
				return true
			}
		}
	}
	return false
}

// hasRoom says whether the node has enough of everything.
func (n *node) hasRoom(asks resources) bool { return n.holds.leaves(asks, n.offers) }

// lacks appends to none what the node has too little of; helpless: even empty it
// would.
func (n *node) lacks(asks resources, none []string) (why []string, helpless bool) {
	why = none
	lack := func(reason string, want, held, offered int64) {
		if want > 0 && held+want > offered {
			why = append(why, reason)
			helpless = helpless || want > offered
		}
	}
	lack(whyPods, asks.pods, n.holds.pods, n.offers.pods)
	lack("Insufficient cpu", asks.cpu, n.holds.cpu, n.offers.cpu)
	lack("Insufficient memory", asks.memory, n.holds.memory, n.offers.memory)
	for name, v := range asks.other {
		lack("Insufficient "+string(name), v, n.holds.other[name], n.offers.other[name])
	}
	return why, helpless
}
