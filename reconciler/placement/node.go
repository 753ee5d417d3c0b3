package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// defaultPods is how many pods a node takes that does not say.
const defaultPods = 110

// A node is what is known of one node: what it offers, and the account of what
// the pods on it hold. Pods may be on it before it is known.
type node struct {
	name     schema.NodeName
	index    int // in the layout; nowhere: it is not known
	known    bool
	labels   map[string]string
	cordoned bool
	taints   []corev1.Taint // its own, and those that follow from its state
	disliked int            // how many of them are PreferNoSchedule

	offers resources
	holds  resources
	scored resources // as holds, but a pod that asks for nothing weighs a little
	ports  map[hostPort]int
	pods   map[podID]*held
	ending int // how many of the pods end
}

// podID tells pods of one node apart.
type podID struct {
	namespace, name string
	uid             types.UID
}

func idOf(p *corev1.Pod) podID { return podID{p.Namespace, p.Name, p.UID} }

// held is a pod on a node's account.
type held struct {
	pod       *corev1.Pod
	count     int  // how often it was put there
	ending    bool // it has a deletionTimestamp, or will have
	evictable bool

	asks  resources
	ports []hostPort
	says  []*heldTerm
	class *class // nil: classes are not kept yet
}

// describe takes over what the node says of itself; nil: nothing is known of it
// any more. What its pods hold stays on the account.
func (n *node) describe(o *corev1.Node) {
	n.known = o != nil
	n.labels, n.cordoned, n.taints, n.disliked, n.offers = nil, false, nil, 0, resources{}
	if o == nil {
		return
	}
	n.labels, n.cordoned = o.Labels, o.Spec.Unschedulable
	n.taints = Taints(o)
	for i := range n.taints {
		if n.taints[i].Effect == corev1.TaintEffectPreferNoSchedule {
			n.disliked++
		}
	}
	n.offers = fromList(o.Status.Allocatable)
	if n.offers.pods == 0 {
		n.offers.pods = defaultPods
	}
}

func (n *node) account(asks resources, ports []hostPort, sign int64) {
	n.holds.add(asks, sign)
	n.scored.add(weight(asks), sign)
	for _, port := range ports {
		if n.ports == nil {
			n.ports = map[hostPort]int{}
		}
		if n.ports[port] += int(sign); n.ports[port] == 0 {
			delete(n.ports, port)
		}
	}
}

// which lists the pods that choose picks, in whatever order.
func (n *node) which(choose func(*held) bool) []*held {
	var all []*held
	for _, h := range n.pods {
		if choose(h) {
			all = append(all, h)
		}
	}
	return all
}
