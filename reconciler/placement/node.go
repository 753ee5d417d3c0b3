package placement

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// defaultPods is how many pods a node takes that does not say.
const defaultPods = 110

// A Node is what placement knows of one node: what it offers, and the account
// of what the pods on it hold. It is not safe for concurrent use.
type Node struct {
	Name          schema.NodeName
	Labels        map[string]string
	Ready         bool
	Unschedulable bool // cordoned

	offers resources
	holds  resources
	scored resources // as holds, but a pod that asks for nothing weighs a little
	ports  map[hostPort]int
}

// NewNode is an account for a node of that name that offers nothing yet.
func NewNode(name schema.NodeName) *Node { return &Node{Name: name} }

// Describe takes over what the node says of itself; nil: nothing is known of
// it any more. What its pods hold stays on the account.
func (n *Node) Describe(o *corev1.Node) {
	n.Labels, n.Ready, n.Unschedulable, n.offers = nil, false, false, resources{}
	if o == nil {
		return
	}
	n.Labels, n.Unschedulable = o.Labels, o.Spec.Unschedulable
	for _, c := range o.Status.Conditions {
		if c.Type == corev1.NodeReady {
			n.Ready = c.Status == corev1.ConditionTrue
		}
	}
	n.offers = fromList(o.Status.Allocatable)
	if n.offers.pods == 0 {
		n.offers.pods = defaultPods
	}
}

// Hold puts a pod on the node's account.
func (n *Node) Hold(p *corev1.Pod) { n.account(p, 1) }

// Release takes a pod off it again: the same pod, or one that asks for the same.
func (n *Node) Release(p *corev1.Pod) { n.account(p, -1) }

// Empty says whether no pod is on the account.
func (n *Node) Empty() bool { return n.holds.pods == 0 }

func (n *Node) account(p *corev1.Pod, sign int64) {
	asks := requests(p)
	n.holds.add(asks, sign)
	n.scored.add(weight(asks), sign)
	for _, port := range hostPorts(p) {
		if n.ports == nil {
			n.ports = map[hostPort]int{}
		}
		if n.ports[port] += int(sign); n.ports[port] == 0 {
			delete(n.ports, port)
		}
	}
}
