package placement

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/pawl-project/pawl/schema"
)

// Whatever nodes, namespaces and pods come, change and go: a Cluster that
// remembers what was asked answers as one does that was made of what there is.
// And who has to make room is less important, may be evicted, and is on the node.
func TestWhatIsRememberedIsWhatIsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, all: NewCluster(), nodes: map[schema.NodeName]*corev1.Node{}, namespaces: map[string]map[string]string{}}
		for range 3 { // pods that come again ask what was asked before
			w.templates = append(w.templates, drawPod(t))
		}
		for i, name := range nodeNames { // a layout should live for a while
			w.node(machine(string(name), "4", "8Gi", func(n *corev1.Node) { n.Labels["zone"] = fmt.Sprint("z", i/2) }))
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.happen()
		}
		for _, h := range w.held {
			w.all.Release(h.on, h.pod)
		}
		for _, h := range w.reserved {
			w.all.Reserve(h.on, h.pod, -1)
		}
		for name := range w.nodes {
			w.all.Describe(name, nil)
		}
		w.all.Nodes()
		if c := w.all; len(c.nodes)+len(c.terms.all)+len(c.terms.index.by)+len(c.terms.index.rest)+len(c.priorities) != 0 ||
			c.classes != nil && len(c.classes.all)+len(c.classes.of) != 0 {
			t.Fatalf("it remembers what is gone: %+v", c)
		}
	})
}

// A world is a Cluster beside all that it was told and that still holds.
type world struct {
	t          *rapid.T
	all        *Cluster
	nodes      map[schema.NodeName]*corev1.Node
	namespaces map[string]map[string]string
	held       []*onNode
	reserved   []*onNode
	templates  []*corev1.Pod
	born       int
}

type onNode struct {
	on        schema.NodeName
	pod       *corev1.Pod
	evictable bool
	ending    bool
}

var nodeNames = []schema.NodeName{"n0", "n1", "n2", "n3"}

func (w *world) happen() {
	t := w.t
	switch rapid.SampledFrom([]string{
		"pod", "pod", "pod", "pod", "pod", "pod", "pod", "pod", "end", "end", "gone", "gone", "gone", "node", "lose", "namespace", "reserve", "forget",
	}).Draw(t, "event") {
	case "node":
		w.node(drawNode(t))
	case "lose":
		name := rapid.SampledFrom(nodeNames).Draw(t, "node")
		delete(w.nodes, name)
		w.all.Describe(name, nil)
	case "namespace":
		w.namespaces["y"] = rapid.SampledFrom([]map[string]string{nil, {"team": "o"}, {"team": "p"}}).Draw(t, "labels")
		w.all.DescribeNamespace("y", w.namespaces["y"])
	case "pod":
		w.pod()
	case "end":
		if len(w.held) > 0 {
			h := rapid.SampledFrom(w.held).Draw(t, "pod")
			h.ending = rapid.Bool().Draw(t, "ending")
			w.all.End(h.on, h.pod, h.ending)
		}
	case "gone":
		if len(w.held) > 0 {
			i := rapid.IntRange(0, len(w.held)-1).Draw(t, "pod")
			w.all.Release(w.held[i].on, w.held[i].pod)
			w.held = slices.Delete(w.held, i, i+1)
		}
	case "reserve":
		if len(w.held) > 0 && len(w.reserved) < 3 {
			h := &onNode{on: rapid.SampledFrom(nodeNames).Draw(t, "node"), pod: rapid.SampledFrom(w.held).Draw(t, "like").pod}
			w.all.Reserve(h.on, h.pod, 1)
			w.reserved = append(w.reserved, h)
		}
	case "forget":
		w.all.layout().cells = enoughCells + 1
	}
}

func (w *world) node(n *corev1.Node) {
	w.nodes[schema.NodeName(n.Name)] = n
	w.all.Describe(schema.NodeName(n.Name), n)
}

// pod places a new pod, or has room made for it, and puts it somewhere.
func (w *world) pod() {
	p := rapid.SampledFrom(w.templates).Draw(w.t, "template").DeepCopy()
	p.Name = fmt.Sprint("p", w.born)
	p.UID = types.UID(p.Name)
	w.born++
	afresh := w.afresh()
	name, err := w.all.Place(p)
	other, otherErr := afresh.Place(p)
	if name != other || fmt.Sprint(err) != fmt.Sprint(otherErr) {
		w.t.Fatalf("goes to %q %v, afresh to %q %v", name, err, other, otherErr)
	}
	if err != nil {
		room, ok := w.all.MakeRoom(p, "n1", err)
		otherRoom, otherOK := afresh.MakeRoom(p, "n1", otherErr)
		if ok != otherOK || room.Node != otherRoom.Node || !slices.Equal(room.Victims, otherRoom.Victims) || err.Error() != otherErr.Error() {
			w.t.Fatalf("room %v %v %v, afresh %v %v %v", room, ok, err, otherRoom, otherOK, otherErr)
		}
		for _, v := range room.Victims {
			w.dismiss(p, room.Node, v)
		}
		name = rapid.SampledFrom(nodeNames).Draw(w.t, "anyway")
	}
	h := &onNode{on: name, pod: p, evictable: rapid.Bool().Draw(w.t, "evictable")}
	w.all.Hold(name, p, h.evictable)
	w.held = append(w.held, h)
}

func (w *world) dismiss(forPod *corev1.Pod, on schema.NodeName, v *corev1.Pod) {
	i := slices.IndexFunc(w.held, func(h *onNode) bool { return h.pod == v && h.on == on })
	if i < 0 || !w.held[i].evictable || w.held[i].ending || priority(v) >= priority(forPod) {
		w.t.Fatalf("pod %s of priority %d is to end on %s for one of %d", v.Name, priority(v), on, priority(forPod))
	}
	w.held[i].ending = true
	w.all.End(on, v, true)
}

// afresh is a Cluster made of what there is.
func (w *world) afresh() *Cluster {
	c := NewCluster()
	for name, o := range w.nodes {
		c.Describe(name, o)
	}
	for name, labels := range w.namespaces {
		c.DescribeNamespace(name, labels)
	}
	for _, h := range w.held {
		c.Hold(h.on, h.pod, h.evictable)
		c.End(h.on, h.pod, h.ending)
	}
	for _, h := range w.reserved {
		c.Reserve(h.on, h.pod, 1)
	}
	return c
}

func drawNode(t *rapid.T) *corev1.Node {
	name := rapid.SampledFrom(nodeNames).Draw(t, "node")
	return machine(string(name), rapid.SampledFrom([]string{"2", "4"}).Draw(t, "cpu"), "8Gi", func(n *corev1.Node) {
		n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("12")
		if z := rapid.IntRange(0, 2).Draw(t, "zone"); z > 0 {
			n.Labels["zone"] = fmt.Sprint("z", z)
		}
		n.Spec.Unschedulable = rapid.IntRange(0, 9).Draw(t, "cordoned") == 0
		if effect := rapid.SampledFrom([]corev1.TaintEffect{"", "", "", corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule}).Draw(t, "taint"); effect != "" {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: effect}}
		}
	})
}

func drawPod(t *rapid.T) *corev1.Pod {
	p := asking(rapid.SampledFrom([]string{"", "", "500m", "1"}).Draw(t, "cpu"), "")
	p.Namespace = rapid.SampledFrom([]string{"x", "x", "x", "y"}).Draw(t, "namespace")
	p.CreationTimestamp = metav1.NewTime(time.Unix(rapid.Int64Range(1000, 1003).Draw(t, "created"), 0))
	p.Labels = map[string]string{"app": drawApp(t), "hash": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "hash")}
	if v := rapid.Int32Range(-1, 3).Draw(t, "priority"); v >= 0 {
		p.Spec.Priority = &v
	}
	for range rapid.IntRange(0, 2).Draw(t, "constraints") {
		drawConstraint(t, &p.Spec)
	}
	return p
}

func drawApp(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app") }

func drawConstraint(t *rapid.T, s *corev1.PodSpec) {
	if s.Affinity == nil {
		s.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}, PodAntiAffinity: &corev1.PodAntiAffinity{}}
	}
	near, apart := s.Affinity.PodAffinity, s.Affinity.PodAntiAffinity
	weighted := func() corev1.WeightedPodAffinityTerm {
		return corev1.WeightedPodAffinityTerm{Weight: rapid.Int32Range(1, 100).Draw(t, "weight"), PodAffinityTerm: drawTerm(t)}
	}
	switch rapid.IntRange(0, 8).Draw(t, "constraint") {
	case 0:
		near.RequiredDuringSchedulingIgnoredDuringExecution = append(near.RequiredDuringSchedulingIgnoredDuringExecution, drawTerm(t))
	case 1:
		near.PreferredDuringSchedulingIgnoredDuringExecution = append(near.PreferredDuringSchedulingIgnoredDuringExecution, weighted())
	case 2:
		apart.RequiredDuringSchedulingIgnoredDuringExecution = append(apart.RequiredDuringSchedulingIgnoredDuringExecution, drawTerm(t))
	case 3:
		apart.PreferredDuringSchedulingIgnoredDuringExecution = append(apart.PreferredDuringSchedulingIgnoredDuringExecution, weighted())
	case 4:
		s.Affinity.NodeAffinity = &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
			Weight: 10, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"z1"}}}},
		}}}
	case 5:
		s.NodeSelector = map[string]string{"zone": "z1"}
	case 6:
		s.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	default:
		s.TopologySpreadConstraints = append(s.TopologySpreadConstraints, drawSpread(t))
	}
}

func drawSpread(t *rapid.T) corev1.TopologySpreadConstraint {
	policy := func(of string) *corev1.NodeInclusionPolicy {
		return rapid.SampledFrom([]*corev1.NodeInclusionPolicy{nil, ptr.To(corev1.NodeInclusionPolicyIgnore), ptr.To(corev1.NodeInclusionPolicyHonor)}).Draw(t, of)
	}
	return corev1.TopologySpreadConstraint{
		TopologyKey: drawKey(t), LabelSelector: drawSelector(t), MaxSkew: rapid.Int32Range(1, 2).Draw(t, "skew"),
		WhenUnsatisfiable:  rapid.SampledFrom([]corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}).Draw(t, "unsatisfiable"),
		MinDomains:         rapid.SampledFrom([]*int32{nil, nil, ptr.To[int32](2)}).Draw(t, "domains"),
		NodeAffinityPolicy: policy("affinity"), NodeTaintsPolicy: policy("taints"),
	}
}

func drawKey(t *rapid.T) string {
	return rapid.SampledFrom([]string{corev1.LabelHostname, "zone"}).Draw(t, "topology")
}

func drawTerm(t *rapid.T) corev1.PodAffinityTerm {
	a := corev1.PodAffinityTerm{TopologyKey: drawKey(t), LabelSelector: drawSelector(t)}
	switch rapid.IntRange(0, 6).Draw(t, "whose") {
	case 0:
		a.Namespaces = []string{"x", "y"}
	case 1:
		a.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "o"}}
	case 2:
		a.MatchLabelKeys = []string{"hash"}
	case 3:
		a.MismatchLabelKeys = []string{"hash"}
	}
	return a
}

func drawSelector(t *rapid.T) *metav1.LabelSelector {
	expression := func(key string, op metav1.LabelSelectorOperator, values ...string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: op, Values: values}}}
	}
	switch rapid.IntRange(0, 8).Draw(t, "selector") {
	case 0:
		return nil
	case 1:
		return &metav1.LabelSelector{}
	case 2:
		return expression("app", metav1.LabelSelectorOpIn, "a", "b")
	case 3:
		return expression("app", metav1.LabelSelectorOpIn, "b")
	case 4:
		return expression("hash", metav1.LabelSelectorOpNotIn, "2")
	default:
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": drawApp(t)}}
	}
}
