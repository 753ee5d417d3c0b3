package placement

import (
	"cmp"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// A Cluster is all nodes with the pods on them. It holds on to the pods it is
// given, which must not change. It is not safe for concurrent use.
type Cluster struct {
	nodes      map[schema.NodeName]*node
	namespaces map[string]map[string]string
	priorities map[int32]int // of the pods that may be evicted → how many have it
	terms      heldTerms     // what pods on nodes say of other pods
	classes    *classes      // of the pods on nodes; nil: nobody asked yet
	laid       *layout       // nil: to be made
	scratch    scratch
}

// NewCluster is one without nodes.
func NewCluster() *Cluster {
	return &Cluster{
		nodes: map[schema.NodeName]*node{}, namespaces: map[string]map[string]string{},
		priorities: map[int32]int{}, terms: heldTerms{all: map[string]*heldTerm{}},
	}
}

// Describe takes over what a node says of itself; nil: nothing is known of it
// any more. What its pods hold stays on its account.
func (c *Cluster) Describe(name schema.NodeName, o *corev1.Node) {
	n := c.node(name)
	was := *n
	n.describe(o)
	if !n.means(&was) {
		c.laid = nil
	}
	c.tidy(n)
}

// DescribeNamespace takes over the labels of a namespace; nil: it is no object.
func (c *Cluster) DescribeNamespace(name string, labels map[string]string) {
	if was, known := c.namespaces[name]; known == (labels != nil) && maps.Equal(was, labels) {
		return
	}
	c.laid = nil
	if labels == nil {
		delete(c.namespaces, name)
		return
	}
	c.namespaces[name] = labels
}

// Nodes is how many nodes are known.
func (c *Cluster) Nodes() int { return len(c.layout().nodes) }

// Hold puts a pod on a node's account. A pod with a deletionTimestamp is one
// that ends; evictable says whether MakeRoom may name it.
func (c *Cluster) Hold(name schema.NodeName, p *corev1.Pod, evictable bool) {
	n := c.node(name)
	id := idOf(p)
	h := n.pods[id]
	if h == nil {
		h = &held{pod: p, ending: p.DeletionTimestamp != nil, evictable: evictable, asks: requests(p), ports: hostPorts(p)}
		h.says = c.terms.join(p)
		if c.classes != nil {
			h.class = c.classes.join(p)
		}
		n.pods[id] = h
		if h.ending {
			n.ending++
		}
	}
	h.count++
	c.put(n, h, 1)
}

// Release takes a pod off a node's account again: the same pod, or one of the
// same identity that asks for the same.
func (c *Cluster) Release(name schema.NodeName, p *corev1.Pod) {
	n := c.node(name)
	id := idOf(p)
	if h := n.pods[id]; h != nil {
		c.put(n, h, -1)
		if h.count--; h.count == 0 {
			c.part(n, h)
			delete(n.pods, id)
		}
	}
	c.tidy(n)
}

// part forgets what only a pod that is on no account any more gave reason to know.
func (c *Cluster) part(n *node, h *held) {
	for _, t := range h.says {
		c.leaveTerm(t)
	}
	if h.class != nil {
		c.classes.leave(h.class)
	}
	if h.ending {
		n.ending--
	}
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
	c.learn(n, h, -h.count)
	h.ending = ending
	if ending {
		n.ending++
	} else {
		n.ending--
	}
	c.learn(n, h, h.count)
	return true
}

// Reserve keeps room on a node for a pod that will go there, and pods away that
// it will not be with; sign -1 gives it free again. The pod itself is not there:
// nobody can be with it yet.
func (c *Cluster) Reserve(name schema.NodeName, p *corev1.Pod, sign int64) {
	n := c.node(name)
	n.account(requests(p), hostPorts(p), sign)
	for _, t := range c.terms.join(p) {
		if t.forbids {
			c.learnTerm(n, t, int(sign))
		}
		if sign < 0 { // it joined when the room was reserved, and again now
			c.leaveTerm(t)
			c.leaveTerm(t)
		}
	}
	c.tidy(n)
}

func (c *Cluster) learnTerm(n *node, t *heldTerm, times int) {
	t.count(n, times)
	if c.laid == nil {
		return
	}
	if tally := c.laid.held[t]; tally != nil {
		tally.add(n, times)
	}
}

func (c *Cluster) leaveTerm(t *heldTerm) {
	if c.terms.leave(t) && c.laid != nil {
		delete(c.laid.held, t)
	}
}

// put has a pod count so many times more on its node, and in all that is known
// of pods together.
func (c *Cluster) put(n *node, h *held, times int) {
	sign, abs := int64(1), times
	if times < 0 {
		sign, abs = -1, -times
	}
	for range abs {
		n.account(h.asks, h.ports, sign)
	}
	c.learn(n, h, times)
}

func (c *Cluster) learn(n *node, h *held, times int) {
	if h.evictable && !h.ending {
		if c.priorities[priority(h.pod)] += times; c.priorities[priority(h.pod)] == 0 {
			delete(c.priorities, priority(h.pod))
		}
	}
	for _, t := range h.says {
		c.learnTerm(n, t, times)
	}
	if h.class == nil {
		return
	}
	count := headcount{all: times}
	if !h.ending {
		count.living = times
	}
	h.class.count(n, count)
	if c.laid == nil {
		return
	}
	c.laid.tallies.each(h.class.labels, func(t *tally) {
		if meetsAll(c, t.terms, h.class.namespace, h.class.labels) {
			t.add(n, count.of(t.living))
		}
	})
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
		n = &node{name: name, index: nowhere, pods: map[podID]*held{}}
		c.nodes[name] = n
	}
	return n
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
