package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/pawl-project/pawl/schema"
)

// A rolling update, whatever the order in which pods become ready, unready and
// gone: never more pods than replicas and surge, and no plan that leaves fewer
// available than must be.
func TestRollingUpdateKeepsItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		c.node("n1", "1000", "1000Gi", "10000", nil)
		want := rapid.IntRange(1, 8).Draw(t, "replicas")
		surge, unavailable := limit(t, "surge"), limit(t, "unavailable")
		d := deployment("web", int32(want), "web:0")
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}
		d.Spec.MinReadySeconds = int32(rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "minReady"))
		c.git[schema.KeyOf(d)] = d
		c.push()
		c.settle(20)
		up, down := limits(d)

		steps := rapid.IntRange(1, 40).Draw(t, "steps")
		for step := range steps {
			if step == 0 || rapid.IntRange(0, 9).Draw(t, "push") == 0 {
				d = d.DeepCopy()
				d.Spec.Template.Spec.Containers[0].Image = fmt.Sprintf("web:%d", rapid.IntRange(0, 3).Draw(t, "image"))
				c.git[schema.KeyOf(d)] = d
				c.push()
			}
			jostle(t, c)
			before := availableNow(c, d.Spec.MinReadySeconds)
			c.plan()
			after, all := availableNow(c, d.Spec.MinReadySeconds), alive(c)
			if all > want+up {
				t.Fatalf("%d pods, with %d replicas and a surge of %d", all, want, up)
			}
			if after < before && after < want-down {
				t.Fatalf("the plan left %d of %d available, %d must be", after, before, want-down)
			}
		}
		c.settle(80)
		checkRuns(t, c)
	})
}

func limit(t *rapid.T, name string) intstr.IntOrString {
	return rapid.SampledFrom([]intstr.IntOrString{
		intstr.FromInt32(0), intstr.FromInt32(1), intstr.FromInt32(3), intstr.FromString("25%"), intstr.FromString("100%"),
	}).Draw(t, name)
}

func alive(c *cluster) int {
	n := 0
	for _, a := range c.assignments() {
		if a.Pod.DeletionTimestamp == nil {
			n++
		}
	}
	return n
}

func availableNow(c *cluster, minReady int32) int {
	n := 0
	for _, a := range c.assignments() {
		p := c.planner.pods[podKey(&a.Pod)].winner()
		if p == nil {
			continue
		}
		if ok, _ := p.available(minReady, c.now); ok {
			n++
		}
	}
	return n
}

// jostle lets some things happen on the nodes, and some time pass.
func jostle(t *rapid.T, c *cluster) {
	for _, a := range c.assignments() {
		if a.Pod.DeletionTimestamp != nil {
			if rapid.IntRange(0, 2).Draw(t, "gone") == 0 {
				c.report(schema.PodReport{Node: a.Node, Pod: a.Pod, Gone: true})
			}
			continue
		}
		switch rapid.IntRange(0, 5).Draw(t, "pod") {
		case 0, 1:
			c.say(a, corev1.PodRunning, true)
		case 2:
			c.say(a, corev1.PodRunning, false)
		}
	}
	c.now = c.now.Add(time.Duration(rapid.IntRange(1, 4000).Draw(t, "ms")) * time.Millisecond)
}

// Whatever happens to the store, the nodes and the repository: a second plan is
// empty, the Planner plans what Plan does (cluster.plan checks both), what is not
// Pawl's is never touched, and once the world is calm it comes to be as Git says.
func TestEveryWorldConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		c.node("n1", "4", "8Gi", "20", nil)
		foreign := foreignPod()
		c.assign(schema.Assignment{Node: "n1", Pod: foreign})
		for range rapid.IntRange(1, 25).Draw(t, "events") {
			happen(t, c)
			if rapid.Bool().Draw(t, "plan") {
				c.plan()
				checkKept(t, c)
			}
		}
		for _, n := range []schema.NodeName{"n1", "n2", "n3"} {
			c.node(n, "1000", "1000Gi", "10000", nil)
		}
		c.w.KeepAll = false
		c.planner.KeepAll(false)
		c.liberate()
		for k, o := range c.git { // a paused one rightly stays where it is
			if d, ok := o.(*appsv1.Deployment); ok && d.Spec.Paused {
				d = d.DeepCopy()
				d.Spec.Paused = false
				c.git[k] = d
			}
		}
		c.push()
		c.calm(60)
		checkRuns(t, c)
		if _, ok := c.w.Assignments["n1"][podKey(&foreign)]; !ok {
			t.Fatal("a pod that something unknown owns was removed")
		}
	})
}

// calm is settle with the foreign pod left out of it.
func (c *cluster) calm(steps int) {
	for range steps {
		res := c.plan()
		if res.Settled && len(res.Changes) == 0 {
			return
		}
		// One name has one report: while a node says of it that it is gone, the
		// other node waits for its turn.
		gone := map[schema.PodKey]bool{}
		for _, a := range c.assignments() {
			if a.Pod.DeletionTimestamp != nil && !gone[podKey(&a.Pod)] {
				gone[podKey(&a.Pod)] = true
				c.report(schema.PodReport{Node: a.Node, Pod: a.Pod, Gone: true})
			}
		}
		for _, a := range c.assignments() {
			if !gone[podKey(&a.Pod)] {
				c.revive(a)
			}
		}
		c.now = c.now.Add(11 * time.Second)
	}
	res := Plan(c.w, c.now)
	c.t.Fatalf("no peace after %d steps: not settled %v, waiting %v\n%s%s", steps, sortedKeys(c.planner.loose), res.Waiting, describe(res.Changes), c.describePods())
}

func (c *cluster) describePods() string {
	var b strings.Builder
	for _, k := range slices.SortedFunc(maps.Keys(c.planner.pods), comparePodKeys) {
		e := c.planner.pods[k]
		fmt.Fprintf(&b, "%s of %s, report %v, record %v:", k, e.root, e.report != nil, e.record != nil)
		for _, p := range e.pods {
			fmt.Fprintf(&b, " on %q %s assigned=%v ending=%v surplus=%v", p.node, p.phase(), p.assigned, p.ending, p.surplus)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// revive lets a node do what it is told with one pod; what ended stays so.
func (c *cluster) revive(a schema.Assignment) {
	k := podKey(&a.Pod)
	r, known := c.w.Reports[k]
	switch {
	case known && r.Node != a.Node && r.Node != "" && !r.Gone:
	case known && r.Pod.UID == a.Pod.UID && (r.Pod.Status.Phase == corev1.PodFailed || r.Pod.Status.Phase == corev1.PodSucceeded):
	default:
		c.say(a, corev1.PodRunning, true)
	}
}

func foreignPod() corev1.Pod {
	p := *barePod("foreign", "foreign:1")
	p.UID = "foreign"
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "foreign", UID: "x", Controller: ptr.To(true)}}
	return p
}

// happen lets one thing happen.
func happen(t *rapid.T, c *cluster) {
	c.now = c.now.Add(time.Duration(rapid.IntRange(1, 7000).Draw(t, "ms")) * time.Millisecond)
	switch rapid.SampledFrom([]string{
		"want", "want", "want", "class", "drop", "push", "push", "node", "lose", "jostle", "jostle", "jostle", "fail",
		"wipe", "keep", "double", "stray", "lost", "lostset", "loststatus", "relocated",
	}).Draw(t, "event") {
	case "want":
		wantSomething(t, c)
	case "class":
		p := priorityClass(rapid.SampledFrom([]string{"high", "low"}).Draw(t, "class"), rapid.Int32Range(-1, 2).Draw(t, "value"))
		p.GlobalDefault = rapid.IntRange(0, 3).Draw(t, "default") == 0
		c.git[schema.KeyOf(p)] = p
	case "drop":
		if keys := sortedKeys(c.git); len(keys) > 0 {
			delete(c.git, rapid.SampledFrom(keys).Draw(t, "drop"))
		}
	case "push":
		c.push()
	case "node":
		c.node(rapid.SampledFrom([]schema.NodeName{"n1", "n2", "n3"}).Draw(t, "node"), "2", "4Gi", "7", func(n *corev1.Node) {
			n.Spec.Unschedulable = rapid.IntRange(0, 2).Draw(t, "cordoned") == 0
			locate(t, n)
		})
	case "lose":
		c.loseNode(rapid.SampledFrom([]schema.NodeName{"n1", "n2", "n3"}).Draw(t, "node"))
	case "jostle":
		jostle(t, c)
	case "fail":
		withAssignment(t, c, func(a schema.Assignment) { c.say(a, corev1.PodFailed, false) })
	case "wipe":
		wipeAll(c)
	case "keep":
		c.w.KeepAll = !c.w.KeepAll
		c.planner.KeepAll(c.w.KeepAll)
	case "double": // a fault: one pod on two nodes
		withAssignment(t, c, func(a schema.Assignment) {
			a = stored(t, a)
			a.Node = rapid.SampledFrom([]schema.NodeName{"n1", "n2", "n3"}).Draw(t, "other")
			a.Pod.Spec.NodeName = string(a.Node)
			c.assign(a)
		})
	case "stray": // a pod nobody asked for
		p := barePod(fmt.Sprintf("stray-%d", rapid.IntRange(0, 2).Draw(t, "stray")), "stray:1")
		p.UID = schema.PodUID(podKey(p), c.now)
		c.say(schema.Assignment{Node: "n2", Pod: *p}, corev1.PodRunning, true)
	case "lost":
		withAssignment(t, c, func(a schema.Assignment) { c.unassign(a.Node, podKey(&a.Pod)) })
	case "lostset":
		if keys := sortedKeys(c.w.ReplicaSets); len(keys) > 0 {
			c.delete(rapid.SampledFrom(keys).Draw(t, "set"))
		}
	case "loststatus":
		if keys := sortedKeys(c.w.Status); len(keys) > 0 {
			c.delete(rapid.SampledFrom(keys).Draw(t, "status"))
		}
	case "relocated": // a report of the same pod from another node
		withAssignment(t, c, func(a schema.Assignment) {
			a = stored(t, a)
			a.Node = rapid.SampledFrom([]schema.NodeName{"n1", "n2", "n3"}).Draw(t, "other")
			a.Pod.Spec.NodeName = string(a.Node) // the gateway refuses any other
			c.say(a, corev1.PodRunning, rapid.Bool().Draw(t, "ready"))
		})
	}
}

func withAssignment(t *rapid.T, c *cluster, f func(schema.Assignment)) {
	all := slices.DeleteFunc(c.assignments(), func(a schema.Assignment) bool { return a.Pod.UID == "foreign" })
	if len(all) > 0 {
		f(rapid.SampledFrom(all).Draw(t, "assignment"))
	}
}

// wipeAll loses the store but for the foreign pod.
func wipeAll(c *cluster) {
	reports, nodes := c.w.Reports, c.w.Nodes
	c.forget()
	c.assign(schema.Assignment{Node: "n1", Pod: foreignPod()})
	for _, r := range reports {
		if r.Node != "" && !r.Gone {
			c.report(r)
		}
	}
	for name, o := range nodes {
		c.w.Nodes[name] = o
		c.planner.SetNode(name, o)
	}
}

// wantSomething puts an object into Git or changes one there. Names clash on purpose.
func wantSomething(t *rapid.T, c *cluster) {
	name := rapid.SampledFrom([]string{"a", "b", "a-b"}).Draw(t, "name")
	image := fmt.Sprintf("%s:%d", name, rapid.IntRange(1, 3).Draw(t, "image"))
	replicas := rapid.Int32Range(0, 5).Draw(t, "replicas")
	d := deployment(name, replicas, image)
	d.Spec.Template.Spec.Containers[0].Ports = rapid.SampledFrom([][]corev1.ContainerPort{nil, nil, nil, {{ContainerPort: 80, HostPort: 80}}}).Draw(t, "ports")
	if d.Spec.Template.Spec.Containers[0].Ports != nil {
		replicas = min(replicas, 1) // three nodes, and other pods may want the port too
		d.Spec.Replicas = &replicas
		d.Spec.Template.Spec.Containers[0].Ports[0].HostPort = 80 + int32(len(name)) + int32(name[0])
		d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	}
	var o schema.Object = d
	switch rapid.SampledFrom([]string{"deployment", "deployment", "replicaset", "controller", "pod"}).Draw(t, "kind") {
	case "deployment":
		d.Spec.Paused = rapid.IntRange(0, 5).Draw(t, "paused") == 0
		d.Spec.MinReadySeconds = rapid.SampledFrom([]int32{0, 0, 5}).Draw(t, "minReady")
		d.Spec.ProgressDeadlineSeconds = rapid.SampledFrom([]*int32{nil, ptr.To[int32](30)}).Draw(t, "deadline")
		d.Spec.RevisionHistoryLimit = rapid.SampledFrom([]*int32{nil, ptr.To[int32](0), ptr.To[int32](1)}).Draw(t, "history")
		if rapid.IntRange(0, 4).Draw(t, "recreate") == 0 {
			d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
		}
	case "replicaset":
		o = &appsv1.ReplicaSet{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"}, ObjectMeta: d.ObjectMeta,
			Spec: appsv1.ReplicaSetSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector, Template: d.Spec.Template}}
		// Sometimes a name that a Deployment's ReplicaSet has.
		if keys := sortedKeys(c.w.ReplicaSets); len(keys) > 0 && rapid.IntRange(0, 3).Draw(t, "clash") == 0 {
			o.SetName(rapid.SampledFrom(keys).Draw(t, "set").Name)
		}
	case "controller":
		o = &corev1.ReplicationController{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ReplicationController"}, ObjectMeta: d.ObjectMeta,
			Spec: corev1.ReplicationControllerSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector.MatchLabels, Template: &d.Spec.Template}}
	case "pod":
		p := barePod(name, image)
		// Sometimes a name that another owner's pod has.
		if all := c.assignments(); len(all) > 0 && rapid.IntRange(0, 3).Draw(t, "clash") == 0 {
			if other := rapid.SampledFrom(all).Draw(t, "other"); other.Pod.UID != "foreign" {
				p.Name = other.Pod.Name
			}
		}
		o = p
	}
	if rapid.Bool().Draw(t, "constrained") {
		constrain(t, specOf(o))
	}
	c.git[schema.KeyOf(o)] = o
}

// checkKept: while the repository may not be read yet, no pod is ended for what
// is not in it.
func checkKept(t *rapid.T, c *cluster) {
	if !c.w.KeepAll {
		return
	}
	res := Plan(c.w, c.now)
	for _, ch := range res.Changes {
		if ch.Event == "Killing" {
			t.Fatalf("ends a pod before the repository was read: %s", describe([]Change{ch}))
		}
	}
}

// checkRuns: there is exactly what Git asks for.
func checkRuns(t *rapid.T, c *cluster) {
	have := map[schema.ObjectKey]int{}
	for _, a := range c.assignments() {
		if k, ok := rootOfPod(&a.Pod); ok {
			have[k]++
		}
		r, ok := c.w.Reports[podKey(&a.Pod)]
		if a.Pod.UID != "foreign" && (!ok || r.Gone || r.Node != a.Node) {
			t.Fatalf("pod %s on %s has no report of its node", a.Pod.Name, a.Node)
		}
	}
	for k, o := range c.w.Desired {
		want := 1
		if specOf(o) == nil {
			continue
		}
		switch o := o.(type) {
		case *appsv1.Deployment:
			want = int(*o.Spec.Replicas)
		case *appsv1.ReplicaSet:
			want = int(*o.Spec.Replicas)
		case *corev1.ReplicationController:
			want = int(*o.Spec.Replicas)
		}
		if have[k] != want {
			t.Fatalf("%s has %d pods, wants %d", k, have[k], want)
		}
		delete(have, k)
	}
	for k := range have {
		if have[k] > 0 {
			t.Fatalf("%d pods of %s, which is not in Git", have[k], k)
		}
	}
}
