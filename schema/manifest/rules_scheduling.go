package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// priorityClassRules keep apart what every cluster has and what people add.
func (o *objectReader) priorityClassRules(c *schedulingv1.PriorityClass) {
	const system = "system-"
	if strings.HasPrefix(c.Name, system) {
		o.fault("metadata.name", "must not begin with "+system, "system-cluster-critical and system-node-critical are there anyway")
	}
}

// schedulingRules check what decides on which node a pod goes.
func (o *objectReader) schedulingRules(s *corev1.PodSpec, at string) {
	for i := range s.Tolerations {
		o.tolerationRules(&s.Tolerations[i], indexPath(at+".tolerations", i))
	}
	o.spreadRules(s.TopologySpreadConstraints, at+".topologySpreadConstraints")
	if a := s.Affinity; a != nil {
		o.affinityRules(a, at+".affinity")
	}
}

func (o *objectReader) tolerationRules(t *corev1.Toleration, at string) {
	exists := t.Operator == corev1.TolerationOpExists
	switch {
	case t.Key == "" && !exists:
		o.fault(at+".operator", "must be Exists when key is empty", "an empty key covers every taint")
	case exists && t.Value != "":
		o.fault(at+".value", "must be empty with operator Exists", "")
	}
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		o.fault(at+".effect", "must be NoExecute when tolerationSeconds is there", "")
	}
}

func (o *objectReader) spreadRules(all []corev1.TopologySpreadConstraint, at string) {
	type identity struct {
		key  string
		when corev1.UnsatisfiableConstraintAction
	}
	seen := map[identity]bool{}
	for i := range all {
		t := &all[i]
		here := indexPath(at, i)
		id := identity{t.TopologyKey, t.WhenUnsatisfiable}
		if seen[id] {
			o.fault(here, fmt.Sprintf("topologyKey %s with %s stands twice", quote(t.TopologyKey), t.WhenUnsatisfiable), "keep one of them")
		}
		seen[id] = true
		if t.MinDomains != nil && t.WhenUnsatisfiable != corev1.DoNotSchedule {
			o.fault(here+".minDomains", "is for whenUnsatisfiable DoNotSchedule", "")
		}
		o.labelRequirements(t.LabelSelector, here+".labelSelector")
		o.labelKeyRules(t.MatchLabelKeys, t.LabelSelector, here+".matchLabelKeys")
	}
}

func (o *objectReader) affinityRules(a *corev1.Affinity, at string) {
	if n := a.NodeAffinity; n != nil {
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			for i := range r.NodeSelectorTerms {
				o.nodeTermRules(&r.NodeSelectorTerms[i], indexPath(at+".nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms", i))
			}
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			o.nodeTermRules(&n.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, indexPath(at+".nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution", i)+".preference")
		}
	}
	if p := a.PodAffinity; p != nil {
		o.podTermRules(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, at+".podAffinity")
	}
	if p := a.PodAntiAffinity; p != nil {
		o.podTermRules(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, at+".podAntiAffinity")
	}
}

func (o *objectReader) nodeTermRules(t *corev1.NodeSelectorTerm, at string) {
	for i, r := range t.MatchExpressions {
		here := indexPath(at+".matchExpressions", i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) == 0 {
				o.fault(here, "must have values with operator "+string(r.Operator), "")
			}
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				o.fault(here, "must have no values with operator "+string(r.Operator), "")
			}
		default:
			if len(r.Values) != 1 {
				o.fault(here, "must have one value with operator "+string(r.Operator), "")
			} else if _, err := strconv.ParseInt(r.Values[0], 10, 64); err != nil {
				o.warn(o.root.find(here+".values"), here+".values", quote(r.Values[0])+" is no whole number, so no node is meant", "")
			}
		}
	}
}

func (o *objectReader) podTermRules(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, at string) {
	for i := range required {
		o.podTerm(&required[i], indexPath(at+".requiredDuringSchedulingIgnoredDuringExecution", i))
	}
	for i := range preferred {
		o.podTerm(&preferred[i].PodAffinityTerm, indexPath(at+".preferredDuringSchedulingIgnoredDuringExecution", i)+".podAffinityTerm")
	}
}

func (o *objectReader) podTerm(t *corev1.PodAffinityTerm, at string) {
	o.labelRequirements(t.LabelSelector, at+".labelSelector")
	o.labelRequirements(t.NamespaceSelector, at+".namespaceSelector")
	o.labelKeyRules(t.MatchLabelKeys, t.LabelSelector, at+".matchLabelKeys")
	o.labelKeyRules(t.MismatchLabelKeys, t.LabelSelector, at+".mismatchLabelKeys")
	for _, k := range t.MismatchLabelKeys {
		if slices.Contains(t.MatchLabelKeys, k) {
			o.fault(at+".mismatchLabelKeys", quote(k)+" stands in matchLabelKeys too", "")
		}
	}
}

// labelRequirements checks what a selector's operators want.
func (o *objectReader) labelRequirements(s *metav1.LabelSelector, at string) {
	if s == nil {
		return
	}
	for i, r := range s.MatchExpressions {
		needs := r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn
		if needs == (len(r.Values) > 0) {
			continue
		}
		problem := "must have values with operator " + string(r.Operator)
		if !needs {
			problem = "must have no values with operator " + string(r.Operator)
		}
		o.fault(indexPath(at+".matchExpressions", i), problem, "")
	}
}

// labelKeyRules: keys narrow a selector, which must be there and not name them.
func (o *objectReader) labelKeyRules(keys []string, s *metav1.LabelSelector, at string) {
	if len(keys) == 0 {
		return
	}
	if s == nil {
		o.fault(at, "must not be there without labelSelector", "")
		return
	}
	for i, k := range keys {
		_, named := s.MatchLabels[k]
		named = named || slices.ContainsFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == k })
		if named {
			o.fault(indexPath(at, i), quote(k)+" stands in labelSelector too", "")
		}
	}
}
