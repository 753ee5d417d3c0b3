package main

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// parseLabels reads --node-labels.
func parseLabels(words []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("--node-labels %q: want KEY=VALUE", w)
		}
		if err := checkLabel(k, v); err != nil {
			return nil, fmt.Errorf("--node-labels %q: %w", w, err)
		}
		labels[k] = v
	}
	return labels, nil
}

// parseTaints reads --node-taints.
func parseTaints(words []string) ([]corev1.Taint, error) {
	var taints []corev1.Taint
	for _, w := range words {
		what, effect, ok := strings.Cut(w, ":")
		if !ok {
			return nil, fmt.Errorf("--node-taints %q: want KEY=VALUE:EFFECT or KEY:EFFECT", w)
		}
		t := corev1.Taint{Effect: corev1.TaintEffect(effect)}
		t.Key, t.Value, _ = strings.Cut(what, "=")
		if err := checkLabel(t.Key, t.Value); err != nil {
			return nil, fmt.Errorf("--node-taints %q: %w", w, err)
		}
		switch t.Effect {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		default:
			return nil, fmt.Errorf("--node-taints %q: the effect must be NoSchedule, PreferNoSchedule or NoExecute", w)
		}
		if slices.ContainsFunc(taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) }) {
			return nil, fmt.Errorf("--node-taints %q: %s stands twice with the effect %s", w, t.Key, t.Effect)
		}
		taints = append(taints, t)
	}
	return taints, nil
}

func checkLabel(key, value string) error {
	if bad := validation.IsQualifiedName(key); len(bad) > 0 {
		return fmt.Errorf("key %q: %s", key, bad[0])
	}
	if bad := validation.IsValidLabelValue(value); len(bad) > 0 {
		return fmt.Errorf("value %q: %s", value, bad[0])
	}
	return nil
}
