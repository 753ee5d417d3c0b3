package placement

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
)

// A kind is the pods that say the same of where they go: those of one template,
// or of many that say nothing. What they say is worked out for the nodes as they
// are, and follows the pods that come and go.
type kind struct {
	fits       []*node        // that would take such a pod if they were empty, by name
	refused    map[string]int // why not → how many of the others; nil: nobody asked yet
	preference []int          // of such a pod for each node; nil: it has none
	dislikes   []int          // of each node for such a pod; nil: no node has any

	beside []*tally // required affinity: who must be there, for each term
	itself bool     // it would do for itself where nobody is
	apart  []*tally // required anti-affinity: who must not be there
	likes  []liking

	must, should spreads
}

// A liking is how much a pod likes, or is liked, for each pod that is counted.
type liking struct {
	*tally
	weight int
}

// words is all that a pod says of where it goes; "" for most of them.
func (l *layout) words(p *corev1.Pod) string {
	var w struct {
		NodeName     string                            `json:",omitempty"`
		NodeSelector map[string]string                 `json:",omitempty"`
		Affinity     *corev1.Affinity                  `json:",omitempty"`
		Tolerations  []corev1.Toleration               `json:",omitempty"`
		Spread       []corev1.TopologySpreadConstraint `json:",omitempty"`
		Namespace    string                            `json:",omitempty"`
		Labels       map[string]string                 `json:",omitempty"`
	}
	s := &p.Spec
	w.NodeName, w.NodeSelector, w.Affinity, w.Spread = s.NodeName, s.NodeSelector, s.Affinity, s.TopologySpreadConstraints
	if l.choosy {
		w.Tolerations = s.Tolerations
	}
	if len(w.NodeName)+len(w.NodeSelector)+len(w.Tolerations)+len(w.Spread) == 0 && w.Affinity == nil {
		return ""
	}
	if sociable(p) {
		w.Namespace, w.Labels = p.Namespace, p.Labels
	}
	text, err := json.Marshal(w)
	if err != nil {
		panic("placement: pod: " + err.Error()) // plain types, which have a JSON form
	}
	return string(text)
}

// sociable says whether a pod says anything of other pods.
func sociable(p *corev1.Pod) bool {
	a := p.Spec.Affinity
	return len(p.Spec.TopologySpreadConstraints) > 0 || a != nil && (a.PodAffinity != nil || a.PodAntiAffinity != nil)
}

func (c *Cluster) kindOf(p *corev1.Pod) *kind {
	l := c.layout()
	words := l.words(p)
	if k := l.kinds[words]; k != nil {
		return k
	}
	k := &kind{}
	k.choose(l, p)
	if sociable(p) {
		k.accompany(c, p)
		k.must, k.should = c.spreadsOf(p, true), c.spreadsOf(p, false)
	}
	l.kinds[words] = k
	l.cells += fewCells + len(words)/8
	return k
}

// choose works out what the pod and the nodes say of each other.
func (k *kind) choose(l *layout, p *corev1.Pod) {
	for _, n := range l.nodes {
		if n.refusesAny(p) == "" {
			k.fits = append(k.fits, n)
		}
	}
	if len(k.fits) == len(l.nodes) {
		k.fits = l.nodes // one list for all that may go anywhere
	} else {
		l.cells += len(k.fits)
	}
	if l.disliked {
		k.dislikes = l.ask(func(n *node) int { return n.dislikes(p) })
	}
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil && len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		k.preference = l.ask(func(n *node) int { return n.preference(p) })
	}
}

// ask asks every node.
func (l *layout) ask(measure func(*node) int) []int {
	all := make([]int, len(l.nodes))
	for i, n := range l.nodes {
		all[i] = measure(n)
	}
	l.cells += len(all)
	return all
}

// whyNot counts the reasons of the nodes that would refuse the pod even if they
// were empty.
func (k *kind) whyNot(l *layout, p *corev1.Pod) map[string]int {
	if k.refused == nil {
		k.refused = map[string]int{}
		for _, n := range l.nodes {
			if why := n.refusesAny(p); why != "" {
				k.refused[why]++
			}
		}
	}
	return k.refused
}

// accompany works out what the pod says of other pods.
func (k *kind) accompany(c *Cluster, p *corev1.Pod) {
	a := p.Spec.Affinity
	if a == nil {
		return
	}
	if w := a.PodAffinity; w != nil {
		k.want(c, p, w.RequiredDuringSchedulingIgnoredDuringExecution)
		for i := range w.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &w.PreferredDuringSchedulingIgnoredDuringExecution[i]
			k.like(c, p, &t.PodAffinityTerm, int(t.Weight))
		}
	}
	if w := a.PodAntiAffinity; w != nil {
		for i := range w.RequiredDuringSchedulingIgnoredDuringExecution {
			t := termOf(p, &w.RequiredDuringSchedulingIgnoredDuringExecution[i])
			k.apart = append(k.apart, c.follow(t.topologyKey, t))
		}
		for i := range w.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &w.PreferredDuringSchedulingIgnoredDuringExecution[i]
			k.like(c, p, &t.PodAffinityTerm, -int(t.Weight))
		}
	}
}

// want: who counts for one term of the required affinity counts for all of them.
func (k *kind) want(c *Cluster, p *corev1.Pod, required []corev1.PodAffinityTerm) {
	var terms []*term
	for i := range required {
		terms = append(terms, termOf(p, &required[i]))
	}
	for _, t := range terms {
		k.beside = append(k.beside, c.follow(t.topologyKey, terms...))
	}
	k.itself = meetsAll(c, terms, p.Namespace, p.Labels)
}

func (k *kind) like(c *Cluster, p *corev1.Pod, t *corev1.PodAffinityTerm, weight int) {
	m := termOf(p, t)
	k.likes = append(k.likes, liking{c.follow(m.topologyKey, m), weight})
}

// follow is a tally of the pods that all terms mean.
func (c *Cluster) follow(key string, terms ...*term) *tally {
	t := c.layout().tally(key)
	t.terms = terms
	t.takeStock(c)
	return t
}
