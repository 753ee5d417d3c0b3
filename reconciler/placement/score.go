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

// A ranking finds the best of the nodes that could take a pod. Without
// preferences that is the least loaded; with them it has to see all of them
// first, as each preference counts by the best and worst there is.
type ranking struct {
	a       *ask
	weight  resources
	should  spreads
	prefers bool // the pod has preferences of its own, or others have about it

	nodes []*node // when it prefers
	least *node   // else
	load  int64
}

func (c *Cluster) ranking(a *ask) *ranking {
	r := &ranking{a: a, weight: weight(a.needs)}
	if len(a.pod.Spec.TopologySpreadConstraints) > 0 {
		r.should = c.spreadsOf(a.pod, false)
	}
	affinity := a.pod.Spec.Affinity
	r.prefers = len(r.should) > 0 || a.company != nil && len(a.company.liked) > 0 ||
		affinity != nil && affinity.NodeAffinity != nil && len(affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0
	for _, n := range c.known() {
		r.prefers = r.prefers || n.disliked > 0
	}
	return r
}

// add takes a node that fits; the nodes come in the order of their names.
func (r *ranking) add(n *node) {
	if r.prefers {
		r.nodes = append(r.nodes, n)
		return
	}
	if load := n.load(r.weight); r.least == nil || load < r.load {
		r.least, r.load = n, load
	}
}

func (r *ranking) any() bool { return r.least != nil || len(r.nodes) > 0 }

func (r *ranking) best() *node {
	if !r.prefers || len(r.nodes) == 0 {
		return r.least
	}
	penalties := make([]int64, len(r.nodes))
	for i, n := range r.nodes {
		penalties[i] = weightLoad * n.load(r.weight)
	}
	r.weigh(penalties, weightTaints, func(n *node) int64 { return n.dislikes(r.a.pod) }, true)
	r.weigh(penalties, weightAffinity, func(n *node) int64 { return -n.preference(r.a.pod) }, true)
	r.weigh(penalties, weightCompany, func(n *node) int64 { return -r.a.company.likes(n) }, false)
	if len(r.should) > 0 {
		r.weighSpread(penalties)
	}
	best := 0
	for i := range penalties {
		if penalties[i] < penalties[best] {
			best = i
		}
	}
	return r.nodes[best]
}

// weigh adds a measure of which less is better: the best node gets nothing, the
// worst the whole weight. From zero: the range is counted from or to 0, so that
// a small difference among large numbers stays small.
func (r *ranking) weigh(penalties []int64, weight int64, measure func(*node) int64, fromZero bool) {
	values := make([]int64, len(r.nodes))
	var low, high int64
	for i, n := range r.nodes {
		values[i] = measure(n)
		if i == 0 && !fromZero {
			low, high = values[i], values[i]
		}
		low, high = min(low, values[i]), max(high, values[i])
	}
	if low == high {
		return
	}
	for i, v := range values {
		penalties[i] += weight * loadUnit * (v - low) / (high - low)
	}
}

// weighSpread is weigh for constraints that should hold; a node without the
// label is as bad as the worst.
func (r *ranking) weighSpread(penalties []int64) {
	var worst int64
	for _, n := range r.nodes {
		if v, ok := r.should.crowd(n); ok {
			worst = max(worst, v)
		}
	}
	r.weigh(penalties, weightSpread, func(n *node) int64 {
		v, ok := r.should.crowd(n)
		if !ok {
			return worst + 1
		}
		return v
	}, false)
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
