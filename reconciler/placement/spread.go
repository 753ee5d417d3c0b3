package placement

import (
	"math"
	"math/bits"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// spreads are a pod's topologySpreadConstraints of one sort, worked out for the
// cluster as it is.
type spreads []*spread

type spread struct {
	key     string
	maxSkew int64
	counts  map[string]int64 // domain → pods like this one; only domains that count
	least   int64            // in any of the domains
	self    int64            // 1 when the pod is like itself
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

// spreadOf counts the pods that end no more: they will be gone.
func (c *Cluster) spreadOf(p *corev1.Pod, t *corev1.TopologySpreadConstraint, keys []string) *spread {
	selector := narrowed(t.LabelSelector, p, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
	s := &spread{key: t.TopologyKey, maxSkew: int64(t.MaxSkew), counts: map[string]int64{}}
	if matches(selector, p.Labels) {
		s.self = 1
	}
	eligible := map[*node]bool{}
	for _, n := range c.known() {
		if n.counts(p, t, keys) {
			eligible[n] = true
			s.counts[n.labels[t.TopologyKey]] += 0
		}
	}
	if selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) > 0 {
		for _, k := range c.index()[p.Namespace] {
			if !matches(selector, k.labels) {
				continue
			}
			for n, count := range k.on {
				if eligible[n] {
					s.counts[n.labels[t.TopologyKey]] += int64(count.living)
				}
			}
		}
	}
	s.least = s.minimum(t.MinDomains)
	return s
}

// minimum is 0 while there are fewer domains than there should be.
func (s *spread) minimum(domains *int32) int64 {
	if domains != nil && len(s.counts) < int(*domains) {
		return 0
	}
	least := int64(math.MaxInt64)
	for _, count := range s.counts {
		least = min(least, count)
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
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
		domain, ok := n.labels[s.key]
		if !ok {
			return whyNoTopology, true
		}
		if s.counts[domain]+s.self-s.least > s.maxSkew {
			return whySpread, false
		}
	}
	return "", false
}

// crowd is how many pods like this one are in the node's domains already: less
// is better. It is not ok when the node has no domain. Many small domains weigh
// more than few large ones, since their counts differ less.
func (all spreads) crowd(n *node) (sum int64, ok bool) {
	for _, s := range all {
		domain, there := n.labels[s.key]
		if !there {
			return 0, false
		}
		sum += s.counts[domain]*int64(bits.Len(uint(len(s.counts)+2))) + s.maxSkew - 1
	}
	return sum, true
}
