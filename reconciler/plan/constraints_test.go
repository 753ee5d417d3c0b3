package plan

import (
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/pawl-project/pawl/schema"
)

func specOf(o schema.Object) *corev1.PodSpec {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template.Spec
	case *appsv1.ReplicaSet:
		return &o.Spec.Template.Spec
	case *corev1.ReplicationController:
		return &o.Spec.Template.Spec
	case *corev1.Pod:
		return &o.Spec
	default:
		return nil
	}
}

func priorityClass(name string, value int32) *schedulingv1.PriorityClass {
	return &schedulingv1.PriorityClass{
		TypeMeta:   metav1.TypeMeta{APIVersion: "scheduling.k8s.io/v1", Kind: "PriorityClass"},
		ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value,
	}
}

// constrain draws what a pod says of where it goes.
func constrain(t *rapid.T, s *corev1.PodSpec) {
	key := rapid.SampledFrom([]string{corev1.LabelHostname, "zone"}).Draw(t, "topology")
	other := &metav1.LabelSelector{MatchLabels: map[string]string{"app": rapid.SampledFrom([]string{"a", "b", "a-b"}).Draw(t, "other")}}
	term := corev1.PodAffinityTerm{LabelSelector: other, TopologyKey: key}
	switch rapid.IntRange(0, 9).Draw(t, "constraint") {
	case 0:
		s.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
	case 1:
		s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
	case 2:
		s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 50, PodAffinityTerm: term}}}}
	case 3, 4:
		s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: key, LabelSelector: other,
			WhenUnsatisfiable: rapid.SampledFrom([]corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}).Draw(t, "unsatisfiable"),
		}}
	case 5:
		s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"z1"}}}}},
		}}}
	}
	if rapid.IntRange(0, 3).Draw(t, "tolerates") == 0 {
		s.Tolerations = []corev1.Toleration{{Key: "sick", Operator: corev1.TolerationOpExists, TolerationSeconds: rapid.SampledFrom([]*int64{nil, ptr.To[int64](20), ptr.To[int64](0)}).Draw(t, "bears")}}
	}
	if rapid.IntRange(0, 7).Draw(t, "named") == 0 {
		s.NodeName = "n1"
	}
	s.PriorityClassName = rapid.SampledFrom([]string{"", "", "high", "low", "unknown", "system-node-critical"}).Draw(t, "class")
	if cpu := rapid.SampledFrom([]string{"", "", "500m", "1"}).Draw(t, "cpu"); cpu != "" {
		s.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
}

// freed is an object without what might keep its pods from ever having a node.
// Of those that may all want one port of the three nodes, Deployments keep it.
func freed(o schema.Object) schema.Object {
	s := specOf(o)
	if s == nil {
		return o
	}
	o = o.DeepCopyObject().(schema.Object)
	s = specOf(o)
	s.Affinity, s.TopologySpreadConstraints, s.NodeName = nil, nil, ""
	if s.PriorityClassName == "unknown" {
		s.PriorityClassName = ""
	}
	if _, ok := o.(*appsv1.Deployment); !ok {
		s.Containers[0].Ports = nil
	}
	return o
}

// liberate takes away what might keep pods from ever having a node: from Git,
// and the pods that wait already, which their owners make anew.
func (c *cluster) liberate() {
	for k, o := range c.git {
		c.git[k] = freed(o)
	}
	for _, p := range []*schedulingv1.PriorityClass{priorityClass("high", 2), priorityClass("low", -1)} {
		c.git[schema.KeyOf(p)] = p
	}
	for _, k := range slices.SortedFunc(keysOf(c.w.Reports), comparePodKeys) {
		if c.w.Reports[k].Node == "" {
			c.delete(objectKey(k))
		}
	}
}

// locate draws a node's labels and taints.
func locate(t *rapid.T, n *corev1.Node) {
	n.Labels = map[string]string{corev1.LabelHostname: n.Name}
	if z := rapid.IntRange(0, 2).Draw(t, "zone"); z > 0 {
		n.Labels["zone"] = fmt.Sprintf("z%d", z)
	}
	switch rapid.IntRange(0, 5).Draw(t, "taint") {
	case 0:
		n.Spec.Taints = []corev1.Taint{{Key: "sick", Effect: corev1.TaintEffectNoExecute}}
	case 1:
		n.Spec.Taints = []corev1.Taint{{Key: "sick", Effect: corev1.TaintEffectNoSchedule}}
	case 2:
		n.Spec.Taints = []corev1.Taint{{Key: "slow", Effect: corev1.TaintEffectPreferNoSchedule}}
	}
}

// constraintFields are near=APP, apart=APP, spread=APP (each by host name),
// class=NAME and bears=SECONDS of the taint sick.
func constraintFields(t *testing.T, spec *corev1.PodSpec, args map[string]string) {
	term := func(app string) []corev1.PodAffinityTerm {
		return []corev1.PodAffinityTerm{{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, TopologyKey: corev1.LabelHostname}}
	}
	if app, ok := args["near"]; ok {
		spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term(app)}}
	}
	if app, ok := args["apart"]; ok {
		spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term(app)}}
	}
	if app, ok := args["spread"]; ok {
		spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
		}}
	}
	if class, ok := args["class"]; ok {
		spec.PriorityClassName = class
	}
	if seconds := number(t, args, "bears", nil); seconds != nil {
		spec.Tolerations = []corev1.Toleration{{Key: "sick", Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To(int64(*seconds))}}
	}
}
