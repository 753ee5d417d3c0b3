package placement

// loadUnit is a full node's load.
const loadUnit = 1 << 20

// What preferences weigh against load, as in Kubernetes, where the balanced and
// the least allocation weigh one each.
const (
	weightLoad     = 2
	weightTaints   = 3
	weightAffinity = 2
	weightSpread   = 2
	weightCompany  = 2
)

// scratch is what one ranking leaves to the next to write over.
type scratch struct {
	nodes             []*node
	penalties, values []int64
}

// best is the best of the nodes that can take a pod; nil: none can. Without
// preferences that is the least loaded.
func (c *Cluster) best(a *ask) *node {
	if a.prefers() {
		return c.mostPreferred(a)
	}
	var least *node
	var lowest int64
	for _, n := range a.fits {
		if !n.takes(a) {
			continue
		}
		if load := n.load(a.weighs); least == nil || load < lowest {
			least, lowest = n, load
		}
	}
	return least
}

// prefers says whether the pod or others have preferences of where it goes.
func (a *ask) prefers() bool {
	return a.dislikes != nil || a.preference != nil || len(a.should)+len(a.likes)+len(a.likedBy) > 0
}

// mostPreferred has to see all nodes first, as each preference counts by the
// best and worst there is.
func (c *Cluster) mostPreferred(a *ask) *node {
	s := &c.scratch
	s.nodes, s.penalties = s.nodes[:0], s.penalties[:0]
	for _, n := range a.fits {
		if n.takes(a) {
			s.nodes = append(s.nodes, n)
			s.penalties = append(s.penalties, weightLoad*n.load(a.weighs))
		}
	}
	if a.dislikes != nil {
		s.weigh(weightTaints, true, func(n *node) int { return a.dislikes[n.index] })
	}
	if a.preference != nil {
		s.weigh(weightAffinity, true, func(n *node) int { return -a.preference[n.index] })
	}
	if len(a.likes)+len(a.likedBy) > 0 {
		s.weigh(weightCompany, false, func(n *node) int { return -a.favour(n) })
	}
	if len(a.should) > 0 {
		s.weighSpread(a.should)
	}
	best := -1
	for i, p := range s.penalties {
		if best < 0 || p < s.penalties[best] {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return s.nodes[best]
}

// weigh adds a measure of which less is better: the best node gets nothing, the
// worst the whole weight. From zero: the range is counted from or to 0, so that
// a small difference among large numbers stays small.
func (s *scratch) weigh(weight int64, fromZero bool, measure func(*node) int) {
	s.values = s.values[:0]
	var low, high int64
	for i, n := range s.nodes {
		v := int64(measure(n))
		s.values = append(s.values, v)
		if i == 0 && !fromZero {
			low, high = v, v
		}
		low, high = min(low, v), max(high, v)
	}
	if low == high {
		return
	}
	for i, v := range s.values {
		s.penalties[i] += weight * loadUnit * (v - low) / (high - low)
	}
}

// weighSpread is weigh for constraints that should hold; a node without the
// label is as bad as the worst.
func (s *scratch) weighSpread(should spreads) {
	worst := 0
	for _, n := range s.nodes {
		if v, ok := should.crowd(n); ok {
			worst = max(worst, v)
		}
	}
	s.weigh(weightSpread, false, func(n *node) int {
		if v, ok := should.crowd(n); ok {
			return v
		}
		return worst + 1
	})
}

// load is how full the node would be with one more pod: the mean of the
// fractions of cpu and memory plus half of what lies between them, which is the
// greater of the two; so a node that would end up lopsided counts as fuller.
// Whole numbers, so that every machine decides alike.
func (n *node) load(more resources) int64 {
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
