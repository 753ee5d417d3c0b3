package placement

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pair is a label with its value.
type pair struct{ key, value string }

// demands lists the labels that all that a selector matches has.
func demands(s *metav1.LabelSelector) []pair {
	var all []pair
	for k, v := range s.MatchLabels {
		all = append(all, pair{k, v})
	}
	for _, r := range s.MatchExpressions {
		if corev1.NodeSelectorOperator(r.Operator) == corev1.NodeSelectorOpIn && len(r.Values) == 1 {
			all = append(all, pair{r.Key, r.Values[0]})
		}
	}
	return all
}

// An index finds what has a selector by the labels that this may match, without
// looking at all the others.
type index[T comparable] struct {
	by   map[pair][]T // that demand this label, the rarest of those they do
	rest []T          // that demand none
}

// add leaves out what has no selector, which matches nothing.
func (x *index[T]) add(s *metav1.LabelSelector, t T) {
	if s == nil {
		return
	}
	all := demands(s)
	if len(all) == 0 {
		x.rest = append(x.rest, t)
		return
	}
	rarest := slices.MinFunc(all, func(a, b pair) int { return len(x.by[a]) - len(x.by[b]) })
	if x.by == nil {
		x.by = map[pair][]T{}
	}
	x.by[rarest] = append(x.by[rarest], t)
}

func (x *index[T]) remove(s *metav1.LabelSelector, t T) {
	if s == nil {
		return
	}
	x.rest = without(x.rest, t)
	for _, p := range demands(s) {
		if x.by[p] = without(x.by[p], t); len(x.by[p]) == 0 {
			delete(x.by, p)
		}
	}
}

// without is a list without one of its members, in whatever order.
func without[T comparable](all []T, t T) []T {
	if i := slices.Index(all, t); i >= 0 {
		all[i] = all[len(all)-1]
		all = slices.Delete(all, len(all)-1, len(all))
	}
	return all
}

// each calls f for all that may match labels, in whatever order.
func (x *index[T]) each(labels map[string]string, f func(T)) {
	for _, t := range x.rest {
		f(t)
	}
	if len(x.by) == 0 {
		return
	}
	for k, v := range labels {
		for _, t := range x.by[pair{k, v}] {
			f(t)
		}
	}
}
