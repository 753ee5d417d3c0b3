package placement

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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
