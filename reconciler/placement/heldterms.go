package placement

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
)

// A heldTerm is one that pods on nodes have, all with the same words.
type heldTerm struct {
	*term
	forbids bool // required anti-affinity
	weight  int  // else: how much their domain is liked
	words   string
	members int           // pods that have it
	on      map[*node]int // how many of them count where
}

// requiredWeight is what a pod's required affinity is worth for the pods that
// it wants to be with, as in Kubernetes.
const requiredWeight = 1

// heldTerms are those of all pods on nodes.
type heldTerms struct {
	all   map[string]*heldTerm
	index index[*heldTerm]
}

// join finds the terms of a pod that has them from now on.
func (s *heldTerms) join(p *corev1.Pod) []*heldTerm {
	a := p.Spec.Affinity
	if a == nil {
		return nil
	}
	var says []*heldTerm
	say := func(t *corev1.PodAffinityTerm, forbids bool, weight int) {
		if h := (&heldTerm{term: termOf(p, t), forbids: forbids, weight: weight}); h.selector != nil {
			says = append(says, s.enter(h))
		}
	}
	if w := a.PodAntiAffinity; w != nil {
		for i := range w.RequiredDuringSchedulingIgnoredDuringExecution {
			say(&w.RequiredDuringSchedulingIgnoredDuringExecution[i], true, 0)
		}
		for i := range w.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &w.PreferredDuringSchedulingIgnoredDuringExecution[i]
			say(&t.PodAffinityTerm, false, -int(t.Weight))
		}
	}
	if w := a.PodAffinity; w != nil {
		for i := range w.RequiredDuringSchedulingIgnoredDuringExecution {
			say(&w.RequiredDuringSchedulingIgnoredDuringExecution[i], false, requiredWeight)
		}
		for i := range w.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &w.PreferredDuringSchedulingIgnoredDuringExecution[i]
			say(&t.PodAffinityTerm, false, int(t.Weight))
		}
	}
	return says
}

func (s *heldTerms) enter(h *heldTerm) *heldTerm {
	text, err := json.Marshal([]any{h.topologyKey, h.selector, h.namespaces, h.others, h.forbids, h.weight})
	if err != nil {
		panic("placement: affinity term: " + err.Error()) // plain types, which have a JSON form
	}
	t := s.all[string(text)]
	if t == nil {
		t = h
		t.words, t.on = string(text), map[*node]int{}
		s.all[t.words] = t
		s.index.add(t.selector, t)
	}
	t.members++
	return t
}

// leave forgets a term with the last pod that has it, and says whether it did.
func (s *heldTerms) leave(t *heldTerm) bool {
	if t.members--; t.members > 0 {
		return false
	}
	delete(s.all, t.words)
	s.index.remove(t.selector, t)
	return true
}

func (t *heldTerm) count(n *node, times int) {
	if t.on[n] += times; t.on[n] == 0 {
		delete(t.on, n)
	}
}

// heldTally counts those who have a term by where they are.
func (c *Cluster) heldTally(t *heldTerm) *tally {
	l := c.layout()
	sums := l.held[t]
	if sums == nil {
		sums = l.tally(t.topologyKey)
		for n, count := range t.on {
			sums.add(n, count)
		}
		l.held[t] = sums
	}
	return sums
}
