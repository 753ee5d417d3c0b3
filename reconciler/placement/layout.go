package placement

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// A layout is what follows from what the nodes and namespaces say of themselves,
// whatever pods are there. It lasts until one of them says something else, and
// is worked out as far as pods ask: what many of them ask in the same words is
// worked out once, as lists by the nodes' numbers.
type layout struct {
	nodes    []*node // that are known, by name; each one's index is its place here
	choosy   bool    // some are cordoned or have taints
	disliked bool    // some have taints that would rather not have a pod

	topologies map[string]*topology
	kinds      map[string]*kind
	held       map[*heldTerm]*tally
	tallies    index[*tally] // of kinds: they are to learn of every pod
	cells      int           // how much is remembered, in words of 8 bytes
}

// How much a layout remembers, some 8 MiB, and what a kind or a tally takes
// beside its lists.
const (
	enoughCells = 1 << 20
	fewCells    = 64
)

// nowhere is the index of a node that is not known, and the domain of one that
// lacks the label.
const nowhere = -1

// layout is made anew when it was dropped.
func (c *Cluster) layout() *layout {
	if c.laid != nil {
		return c.laid
	}
	l := &layout{nodes: make([]*node, 0, len(c.nodes)), topologies: map[string]*topology{}}
	for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
		n := c.nodes[name]
		n.index = nowhere
		if !n.known {
			continue
		}
		n.index = len(l.nodes)
		l.nodes = append(l.nodes, n)
		l.choosy = l.choosy || n.cordoned || len(n.taints) > 0
		l.disliked = l.disliked || n.disliked > 0
	}
	l.forget()
	c.laid = l
	return l
}

// forget keeps nothing of what pods asked.
func (l *layout) forget() {
	l.kinds, l.held, l.tallies, l.cells = map[string]*kind{}, map[*heldTerm]*tally{}, index[*tally]{}, 0
}

// A topology sorts the nodes into domains: those that have one value of a label.
type topology struct {
	of      []int // the domain of each node
	domains int
}

func (l *layout) topology(key string) *topology {
	t := l.topologies[key]
	if t != nil {
		return t
	}
	t = &topology{of: make([]int, len(l.nodes))}
	numbers := map[string]int{}
	for i, n := range l.nodes {
		value, ok := n.labels[key]
		if !ok {
			t.of[i] = nowhere
			continue
		}
		domain, ok := numbers[value]
		if !ok {
			domain = len(numbers)
			numbers[value] = domain
		}
		t.of[i] = domain
	}
	t.domains = len(numbers)
	l.topologies[key] = t
	return t
}

// means says whether a node means the same to a layout as it did.
func (n *node) means(was *node) bool {
	return n.known == was.known && n.cordoned == was.cordoned && maps.Equal(n.labels, was.labels) &&
		slices.EqualFunc(n.taints, was.taints, func(a, b corev1.Taint) bool { return a.MatchTaint(&b) && a.Value == b.Value })
}
