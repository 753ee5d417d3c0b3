package placement

import (
	"math/bits"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// spreads are a pod's topologySpreadConstraints of one sort. Their tallies count
// the pods that end no more: they will be gone.
type spreads []*spread

type spread struct {
	*tally
	maxSkew    int
	minDomains int
	present    []int // the domains that count
	self       int   // 1 when the pod is like itself

	least  int // in any of those domains,
	seenAt int // as of this version of the tally
}

// spreadsOf works out the constraints that must hold, or those that should.
func (c *Cluster) spreadsOf(p *corev1.Pod, must bool) spreads {
	var all spreads
	var keys []string
	var chosen []*corev1.TopologySpreadConstraint
	for i := range p.Spec.TopologySpreadConstraints {
		t := &p.Spec.TopologySpreadConstraints[i]
		if (t.WhenUnsatisfiable != corev1.ScheduleAnyway) == must {
			chosen, keys = append(chosen, t), append(keys, t.TopologyKey)
		}
	}
	for _, t := range chosen {
		all = append(all, c.spreadOf(p, t, keys))
	}
	return all
}

func (c *Cluster) spreadOf(p *corev1.Pod, t *corev1.TopologySpreadConstraint, keys []string) *spread {
	l := c.layout()
	s := &spread{tally: l.tally(t.TopologyKey), maxSkew: int(t.MaxSkew), seenAt: -1}
	if t.MinDomains != nil {
		s.minDomains = int(*t.MinDomains)
	}
	selector := narrowed(t.LabelSelector, p, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
	if matches(selector, p.Labels) {
		s.self = 1
	}
	s.living, s.among = true, make([]bool, len(l.nodes))
	seen := make([]bool, s.topology.domains)
	for i, n := range l.nodes {
		if !n.counts(p, t, keys) {
			continue
		}
		s.among[i] = true
		if domain := s.of[i]; !seen[domain] {
			seen[domain] = true
			s.present = append(s.present, domain)
		}
	}
	l.cells += fewCells + len(s.present) + len(s.among)/8
	if selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) > 0 {
		s.terms = []*term{{topologyKey: t.TopologyKey, selector: selector, namespaces: []string{p.Namespace}}}
		s.takeStock(c)
	}
	return s
}

// minimum is the least count of any domain, and 0 while there are fewer domains
// than there should be.
func (s *spread) minimum() int {
	if s.seenAt == s.version {
		return s.least
	}
	s.seenAt, s.least = s.version, 0
	if len(s.present) < s.minDomains {
		return 0
	}
	for i, domain := range s.present {
		if count := s.tally.counts[domain]; i == 0 || count < s.least {
			s.least = count
		}
	}
	return s.least
}

// counts says whether a node's domain counts for a constraint.
func (n *node) counts(p *corev1.Pod, t *corev1.TopologySpreadConstraint, keys []string) bool {
	for _, k := range keys {
		if _, ok := n.labels[k]; !ok {
			return false
		}
	}
	if (t.NodeAffinityPolicy == nil || *t.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor) && !n.selected(p) {
		return false
	}
	return t.NodeTaintsPolicy == nil || *t.NodeTaintsPolicy == corev1.NodeInclusionPolicyIgnore || n.forbids(p) == nil
}

// refuses says which constraint keeps the pod off a node, and whether the going
// of pods of that node could help.
func (all spreads) refuses(n *node) (why string, helpless bool) {
	for _, s := range all {
		count, ok := s.at(n)
		if !ok {
			return whyNoTopology, true
		}
		if count+s.self-s.minimum() > s.maxSkew {
			return whySpread, false
		}
	}
	return "", false
}

// crowd is how many pods like this one are in the node's domains already: less
// is better. It is not ok when the node has no domain. Many small domains weigh
// more than few large ones, since their counts differ less.
func (all spreads) crowd(n *node) (sum int, ok bool) {
	for _, s := range all {
		count, there := s.at(n)
		if !there {
			return 0, false
		}
		sum += count*bits.Len(uint(len(s.present)+2)) + s.maxSkew - 1
	}
	return sum, true
}
