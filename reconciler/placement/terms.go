package placement

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pair is a topology domain: the nodes whose label of that key has that value.
type pair struct{ key, value string }

// A term is a pod affinity term as one pod means it.
type term struct {
	topologyKey string
	selector    *metav1.LabelSelector
	namespaces  []string
	others      *metav1.LabelSelector // of namespaces; nil: none but those named
}

// termOf settles what a term leaves to the pod that has it: its namespace, and
// the values of its own labels that matchLabelKeys and mismatchLabelKeys name.
func termOf(p *corev1.Pod, t *corev1.PodAffinityTerm) *term {
	s := &term{topologyKey: t.TopologyKey, selector: t.LabelSelector, namespaces: t.Namespaces, others: t.NamespaceSelector}
	if len(t.Namespaces) == 0 && t.NamespaceSelector == nil {
		s.namespaces = []string{p.Namespace}
	}
	s.selector = narrowed(s.selector, p, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
	s.selector = narrowed(s.selector, p, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	return s
}

// narrowed is a selector with a requirement for each label that a pod has of keys.
func narrowed(s *metav1.LabelSelector, p *corev1.Pod, keys []string, op metav1.LabelSelectorOperator) *metav1.LabelSelector {
	if s == nil || len(keys) == 0 {
		return s
	}
	more := slices.Clone(s.MatchExpressions)
	for _, k := range keys {
		if v, ok := p.Labels[k]; ok {
			more = append(more, metav1.LabelSelectorRequirement{Key: k, Operator: op, Values: []string{v}})
		}
	}
	return &metav1.LabelSelector{MatchLabels: s.MatchLabels, MatchExpressions: more}
}

// covers says whether pods of a namespace are meant.
func (t *term) covers(c *Cluster, namespace string) bool {
	if slices.Contains(t.namespaces, namespace) {
		return true
	}
	return t.others != nil && matches(t.others, c.namespaceLabels(namespace))
}

// namespaceLabels: every namespace has its name as a label, an object or not.
func (c *Cluster) namespaceLabels(name string) map[string]string {
	if l := c.namespaces[name]; l != nil {
		return l
	}
	return map[string]string{corev1.LabelMetadataName: name}
}

func (t *term) matches(c *Cluster, namespace string, labels map[string]string) bool {
	return t.covers(c, namespace) && matches(t.selector, labels)
}

// A heldTerm is one that pods on nodes have, all with the same words.
type heldTerm struct {
	*term
	forbids bool  // required anti-affinity
	weight  int64 // else: how much their domain is liked
	on      map[*node]int
}

// requiredWeight is what a pod's required affinity is worth for the pods that
// it wants to be with, as in Kubernetes.
const requiredWeight = 1

// learnTerms keeps the terms of the pods that are on nodes.
func (c *Cluster) learnTerms(n *node, p *corev1.Pod, sign int) {
	a := p.Spec.Affinity
	if a == nil {
		return
	}
	if w := a.PodAntiAffinity; w != nil {
		for i := range w.RequiredDuringSchedulingIgnoredDuringExecution {
			c.learnTerm(n, heldTerm{term: termOf(p, &w.RequiredDuringSchedulingIgnoredDuringExecution[i]), forbids: true}, sign)
		}
		for i := range w.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &w.PreferredDuringSchedulingIgnoredDuringExecution[i]
			c.learnTerm(n, heldTerm{term: termOf(p, &t.PodAffinityTerm), weight: -int64(t.Weight)}, sign)
		}
	}
	if w := a.PodAffinity; w != nil {
		for i := range w.RequiredDuringSchedulingIgnoredDuringExecution {
			c.learnTerm(n, heldTerm{term: termOf(p, &w.RequiredDuringSchedulingIgnoredDuringExecution[i]), weight: requiredWeight}, sign)
		}
		for i := range w.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &w.PreferredDuringSchedulingIgnoredDuringExecution[i]
			c.learnTerm(n, heldTerm{term: termOf(p, &t.PodAffinityTerm), weight: int64(t.Weight)}, sign)
		}
	}
}

func (c *Cluster) learnTerm(n *node, t heldTerm, sign int) {
	key := t.words()
	h := c.terms[key]
	if h == nil {
		h = &t
		h.on = map[*node]int{}
		c.terms[key] = h
	}
	if h.on[n] += sign; h.on[n] == 0 {
		delete(h.on, n)
	}
	if len(h.on) == 0 {
		delete(c.terms, key)
	}
}

// words tells terms apart that do not say the same.
func (t *heldTerm) words() string {
	text, err := json.Marshal([]any{t.topologyKey, t.selector, t.namespaces, t.others, t.forbids, t.weight})
	if err != nil {
		panic("placement: affinity term: " + err.Error()) // plain types, which have a JSON form
	}
	return string(text)
}

// A class is the pods of one namespace with the same labels. Their number is
// small where the number of pods is not.
type class struct {
	labels map[string]string
	on     map[*node]tally
}

// A tally counts the pods of a class on a node.
type tally struct{ all, living int }

type classes map[string]*class // by their labels' words

// index is the classes by namespace, made when somebody first asks.
func (c *Cluster) index() map[string]classes {
	if c.classes == nil {
		c.classes = map[string]classes{}
		for _, n := range c.nodes {
			for _, h := range n.pods {
				for range h.count {
					c.classify(n, h, 1)
				}
			}
		}
	}
	return c.classes
}

func (c *Cluster) classify(n *node, h *held, sign int) {
	of := c.classes[h.pod.Namespace]
	if of == nil {
		of = classes{}
		c.classes[h.pod.Namespace] = of
	}
	key := labelWords(h.pod.Labels)
	k := of[key]
	if k == nil {
		k = &class{labels: h.pod.Labels, on: map[*node]tally{}}
		of[key] = k
	}
	t := k.on[n]
	t.all += sign
	if !h.ending {
		t.living += sign
	}
	k.on[n] = t
	if t.all == 0 {
		delete(k.on, n)
	}
	if len(k.on) == 0 {
		delete(of, key)
	}
	if len(of) == 0 {
		delete(c.classes, h.pod.Namespace)
	}
}

func labelWords(labels map[string]string) string {
	keys := make([]string, 0, len(labels))
	size := 0
	for k, v := range labels {
		keys = append(keys, k)
		size += len(k) + len(v) + 2
	}
	slices.Sort(keys)
	b := make([]byte, 0, size)
	for _, k := range keys {
		b = append(append(append(append(b, k...), 0), labels[k]...), 0)
	}
	return string(b)
}

// each calls f for every class that a term means.
func (t *term) each(c *Cluster, f func(namespace string, k *class)) {
	index := c.index()
	if t.others == nil {
		for i, ns := range t.namespaces {
			if !slices.Contains(t.namespaces[:i], ns) {
				t.eachOf(ns, index[ns], f)
			}
		}
		return
	}
	for ns, of := range index {
		if t.covers(c, ns) {
			t.eachOf(ns, of, f)
		}
	}
}

func (t *term) eachOf(ns string, of classes, f func(namespace string, k *class)) {
	for _, k := range of {
		if matches(t.selector, k.labels) {
			f(ns, k)
		}
	}
}
