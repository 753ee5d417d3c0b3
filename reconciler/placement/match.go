package placement

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// matches says whether labels meet a selector. A nil one matches nothing, an
// empty one everything. (The selectors of apimachinery say the same, but are
// made anew for each question.)
func matches(s *metav1.LabelSelector, labels map[string]string) bool {
	if s == nil {
		return false
	}
	for k, v := range s.MatchLabels {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	for i := range s.MatchExpressions {
		r := &s.MatchExpressions[i]
		if !holds(corev1.NodeSelectorOperator(r.Operator), r.Key, r.Values, labels) {
			return false
		}
	}
	return true
}

// holds says whether labels meet one requirement. What has no meaning does not
// hold: the rules for manifests refuse it.
func holds(op corev1.NodeSelectorOperator, key string, values []string, labels map[string]string) bool {
	have, there := labels[key]
	switch op {
	case corev1.NodeSelectorOpIn:
		return there && slices.Contains(values, have)
	case corev1.NodeSelectorOpNotIn:
		return !there || !slices.Contains(values, have)
	case corev1.NodeSelectorOpExists:
		return there
	case corev1.NodeSelectorOpDoesNotExist:
		return !there
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		return there && len(values) == 1 && beyond(op, have, values[0])
	default:
		return false
	}
}

// beyond compares whole numbers; a label that is none is beyond nothing.
func beyond(op corev1.NodeSelectorOperator, have, bound string) bool {
	h, err := strconv.ParseInt(have, 10, 64)
	if err != nil {
		return false
	}
	b, err := strconv.ParseInt(bound, 10, 64)
	if err != nil {
		return false
	}
	if op == corev1.NodeSelectorOpGt {
		return h > b
	}
	return h < b
}

// selected says whether a pod's nodeSelector and required node affinity take a node.
func (n *node) selected(p *corev1.Pod) bool {
	for k, v := range p.Spec.NodeSelector {
		if have, ok := n.labels[k]; !ok || have != v {
			return false
		}
	}
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return slices.ContainsFunc(terms, n.meets)
}

// meets: all requirements of a term hold. A term without any is met by no node.
func (n *node) meets(t corev1.NodeSelectorTerm) bool {
	if len(t.MatchExpressions)+len(t.MatchFields) == 0 {
		return false
	}
	for i := range t.MatchExpressions {
		r := &t.MatchExpressions[i]
		if !holds(r.Operator, r.Key, r.Values, n.labels) {
			return false
		}
	}
	for i := range t.MatchFields {
		r := &t.MatchFields[i]
		if !holds(r.Operator, r.Key, r.Values, map[string]string{metav1.ObjectNameField: string(n.name)}) {
			return false
		}
	}
	return true
}

// preference is how much a pod's preferred node affinity likes a node.
func (n *node) preference(p *corev1.Pod) int {
	sum := 0
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil {
		return 0
	}
	for _, t := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		// An empty preference is met by every node.
		if len(t.Preference.MatchExpressions)+len(t.Preference.MatchFields) == 0 || n.meets(t.Preference) {
			sum += int(t.Weight)
		}
	}
	return sum
}
