package placement

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// A Cluster is all nodes with the pods on them. It holds on to the pods it is
// given, which must not change. It is not safe for concurrent use.
type Cluster struct {
	nodes      map[schema.NodeName]*node
	sorted     []*node // those that are known, by name; nil: to be made
	namespaces map[string]map[string]string
	priorities map[int32]int        // of the pods that may be evicted → how many have it
	terms      map[string]*heldTerm // what pods on nodes say of other pods
	classes    map[string]classes   // by namespace; nil: nobody asked yet
}

// NewCluster is one without nodes.
func NewCluster() *Cluster {
	return &Cluster{
		nodes: map[schema.NodeName]*node{}, namespaces: map[string]map[string]string{},
		priorities: map[int32]int{}, terms: map[string]*heldTerm{},
	}
}

// Describe takes over what a node says of itself; nil: nothing is known of it
// any more. What its pods hold stays on its account.
func (c *Cluster) Describe(name schema.NodeName, o *corev1.Node) {
	n := c.node(name)
	if n.known != (o != nil) {
		c.sorted = nil
	}
	n.describe(o)
	c.tidy(n)
}

// DescribeNamespace takes over the labels of a namespace; nil: it is no object.
func (c *Cluster) DescribeNamespace(name string, labels map[string]string) {
	if labels == nil {
		delete(c.namespaces, name)
		return
	}
	c.namespaces[name] = labels
}

// Nodes is how many nodes are known.
func (c *Cluster) Nodes() int { return len(c.known()) }

// Hold puts a pod on a node's account. A pod with a deletionTimestamp is one
// that ends; evictable says whether MakeRoom may name it.
func (c *Cluster) Hold(name schema.NodeName, p *corev1.Pod, evictable bool) {
	n := c.node(name)
	n.account(p, 1)
	id := idOf(p)
	h := n.pods[id]
	if h == nil {
		h = &held{pod: p, ending: p.DeletionTimestamp != nil, evictable: evictable}
		n.pods[id] = h
		if h.ending {
			n.ending++
		}
	}
	h.count++
	c.learn(n, h, 1)
}

// Release takes a pod off a node's account again: the same pod, or one of the
// same identity that asks for the same.
func (c *Cluster) Release(name schema.NodeName, p *corev1.Pod) {
	n := c.node(name)
	id := idOf(p)
	if h := n.pods[id]; h != nil {
		n.account(h.pod, -1)
		c.learn(n, h, -1)
		if h.count--; h.count == 0 {
			delete(n.pods, id)
			if h.ending {
				n.ending--
			}
		}
	}
	c.tidy(n)
}

// End says whether a pod on a node is going to end, and returns whether that
// is news.
func (c *Cluster) End(name schema.NodeName, p *corev1.Pod, ending bool) bool {
	n := c.nodes[name]
	if n == nil {
		return false
	}
	h := n.pods[idOf(p)]
	if h == nil || h.ending == ending {
		return false
	}
	for range h.count {
		c.learn(n, h, -1)
	}
	h.ending = ending
	if ending {
		n.ending++
	} else {
		n.ending--
	}
	for range h.count {
		c.learn(n, h, 1)
	}
	return true
}

// Reserve keeps room on a node for a pod that will go there; sign -1 gives it
// free again. The pod itself is not there: nothing holds it against others.
func (c *Cluster) Reserve(name schema.NodeName, p *corev1.Pod, sign int64) {
	n := c.node(name)
	n.account(p, sign)
	c.tidy(n)
}

// learn keeps what is known of all pods together: sign is 1 for one more.
func (c *Cluster) learn(n *node, h *held, sign int) {
	if h.evictable && !h.ending {
		if c.priorities[priority(h.pod)] += sign; c.priorities[priority(h.pod)] == 0 {
			delete(c.priorities, priority(h.pod))
		}
	}
	c.learnTerms(n, h.pod, sign)
	if c.classes != nil {
		c.classify(n, h, sign)
	}
}

// tidy forgets a node of which nothing is known any more.
func (c *Cluster) tidy(n *node) {
	if !n.known && n.holds.pods == 0 {
		delete(c.nodes, n.name)
	}
}

func (c *Cluster) node(name schema.NodeName) *node {
	n := c.nodes[name]
	if n == nil {
		n = &node{name: name, pods: map[podID]*held{}}
		c.nodes[name] = n
	}
	return n
}

// known lists the nodes that are known, by name.
func (c *Cluster) known() []*node {
	if c.sorted == nil {
		c.sorted = make([]*node, 0, len(c.nodes))
		for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
			if n := c.nodes[name]; n.known {
				c.sorted = append(c.sorted, n)
			}
		}
	}
	return c.sorted
}

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

func compareIDs(a, b podID) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name), cmp.Compare(a.uid, b.uid))
}
