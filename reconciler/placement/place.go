package placement

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// An Unfit says why no node takes a pod, in the words kubectl's users know. It
// wraps schema.ErrUnavailable: a node that changes or a pod that goes mends it.
type Unfit struct {
	Nodes   int            // how many were looked at
	Reasons map[string]int // why not → on how many nodes
}

// Error is one line: 0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods.
func (u *Unfit) Error() string {
	if u.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	parts := make([]string, 0, len(u.Reasons))
	for why, n := range u.Reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", u.Nodes, strings.Join(parts, ", "))
}

// Unwrap makes errors.Is(err, schema.ErrUnavailable) true.
func (u *Unfit) Unwrap() error { return schema.ErrUnavailable }

// The reasons, as Kubernetes' scheduler words them.
const (
	whyUnschedulable = "node(s) were unschedulable"
	whyNotReady      = "node(s) had untolerated taint {" + corev1.TaintNodeNotReady + ": }"
	whySelector      = "node(s) didn't match Pod's node affinity/selector"
	whyName          = "node(s) didn't match the requested node name"
	whyPorts         = "node(s) didn't have free ports for the requested pod ports"
	whyPods          = "Too many pods"
)

// Place chooses the node for a pod: the least loaded of those that can take it,
// counting the pod itself; of equals the first by name. A pod that names its
// node goes there whether the node is ready for others or not, once it fits. The
// error is an *Unfit. Nobody's account changes: the caller Holds the pod on the
// node it takes.
func Place(p *corev1.Pod, nodes []*Node) (schema.NodeName, error) {
	asks, ports := requests(p), hostPorts(p)
	var best *Node
	var bestLoad int64
	unfit := &Unfit{Nodes: len(nodes), Reasons: map[string]int{}}
	for _, n := range nodes {
		if reasons := n.refuses(p, asks, ports); len(reasons) > 0 {
			for _, why := range reasons {
				unfit.Reasons[why]++
			}
			continue
		}
		load := n.load(weight(asks))
		if best == nil || load < bestLoad || load == bestLoad && n.Name < best.Name {
			best, bestLoad = n, load
		}
	}
	if best == nil {
		return "", unfit
	}
	return best.Name, nil
}

// refuses lists why n cannot take p: the first sort of reason that applies, and
// of what it has too little of, everything.
func (n *Node) refuses(p *corev1.Pod, asks resources, ports []hostPort) []string {
	if p.Spec.NodeName != "" {
		if p.Spec.NodeName != string(n.Name) {
			return []string{whyName}
		}
	} else {
		switch {
		case n.Unschedulable:
			return []string{whyUnschedulable}
		case !n.Ready:
			return []string{whyNotReady}
		case !n.selected(p):
			return []string{whySelector}
		}
	}
	if n.portTaken(ports) {
		return []string{whyPorts}
	}
	return n.lacks(asks)
}

func (n *Node) selected(p *corev1.Pod) bool {
	for k, v := range p.Spec.NodeSelector {
		if have, ok := n.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func (n *Node) portTaken(ports []hostPort) bool {
	for _, want := range ports {
		for held := range n.ports {
			if want.clashes(held) {
				return true
			}
		}
	}
	return false
}

func (n *Node) lacks(asks resources) []string {
	var why []string
	if n.holds.pods+asks.pods > n.offers.pods {
		why = append(why, whyPods)
	}
	if asks.cpu > 0 && n.holds.cpu+asks.cpu > n.offers.cpu {
		why = append(why, "Insufficient cpu")
	}
	if asks.memory > 0 && n.holds.memory+asks.memory > n.offers.memory {
		why = append(why, "Insufficient memory")
	}
	for name, v := range asks.other {
		if v > 0 && n.holds.other[name]+v > n.offers.other[name] {
			why = append(why, "Insufficient "+string(name))
		}
	}
	return why
}

// loadUnit is a full node's load.
const loadUnit = 1 << 20

// load is how full the node would be with one more pod: the mean of the
// fractions of cpu and memory plus half of what lies between them, which is the
// greater of the two; so a node that would end up lopsided counts as fuller.
// Whole numbers, so that every machine decides alike.
func (n *Node) load(more resources) int64 {
	return max(
		fraction(n.scored.cpu+more.cpu, n.offers.cpu),
		fraction((n.scored.memory+more.memory)>>10, n.offers.memory>>10),
	)
}

func fraction(used, of int64) int64 {
	if of <= 0 {
		return loadUnit
	}
	return used * loadUnit / of
}
