package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// tester is what a test, a benchmark and a property check have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// cluster is a store and nodes that do what they are told, one call at a time.
// What is written passes through JSON, as in the store. A Planner is told every
// change and must always plan what Plan does.
type cluster struct {
	t       tester
	w       *World
	planner *Planner
	now     time.Time
	commits int
	git     map[schema.ObjectKey]schema.Object
	before  map[schema.PodKey]schema.PodReport // as the last plan saw them
}

func newCluster(t tester) *cluster {
	c := &cluster{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), git: map[schema.ObjectKey]schema.Object{}}
	c.forget()
	return c
}

// forget wipes the store.
func (c *cluster) forget() {
	c.w = &World{
		Desired: map[schema.ObjectKey]schema.Object{}, Assignments: map[schema.NodeName]map[schema.PodKey]schema.Assignment{},
		Reports: map[schema.PodKey]schema.PodReport{}, ReplicaSets: map[schema.ObjectKey]*appsv1.ReplicaSet{},
		Status: map[schema.ObjectKey]schema.Object{}, Nodes: map[schema.NodeName]*corev1.Node{},
	}
	c.planner = NewPlanner(c.w)
}

func stored[T any](t tester, v T) T {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	var out T
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("decode: %v", err)
	}
	return out
}

func storedObject(t tester, o schema.Object) schema.Object {
	t.Helper()
	info, ok := schema.LookupGVK(o.GetObjectKind().GroupVersionKind())
	if !ok {
		t.Fatalf("object without a known kind: %T %s", o, o.GetName())
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	out := info.New()
	if err := json.Unmarshal(text, out); err != nil {
		t.Fatalf("decode: %v", err)
	}
	return out
}

// push makes the objects of git the desired state.
func (c *cluster) push() Desired {
	c.t.Helper()
	c.commits++
	rev := schema.Revision{Commit: schema.Commit{ID: fmt.Sprintf("%040x", c.commits), Author: "Ann", Email: "ann@example.org"}}
	for _, k := range sortedKeys(c.git) {
		rev.Objects = append(rev.Objects, c.git[k])
	}
	d := Desire(rev, c.w.Desired, nil, c.now)
	for _, o := range d.Put {
		o = storedObject(c.t, o)
		c.w.Desired[schema.KeyOf(o)] = o
		c.planner.SetDesired(schema.KeyOf(o), o)
	}
	for _, k := range d.Delete {
		delete(c.w.Desired, k)
		c.planner.SetDesired(k, nil)
	}
	return d
}

// plan plans, compares with the Planner, writes, and plans again: nothing may be left to do.
func (c *cluster) plan() Result {
	c.t.Helper()
	res := Plan(c.w, c.now)
	c.compare(res, c.planner.Plan(c.now))
	c.before = maps.Clone(c.w.Reports)
	c.apply(res.Changes)
	again := Plan(c.w, c.now)
	if len(again.Changes) > 0 {
		c.t.Errorf("a second plan after applying the first wants more:\n%safter\n%swith\n%s", describe(again.Changes), describe(res.Changes), c.describePods())
	}
	c.compare(again, c.planner.Plan(c.now))
	if again.Settled && len(again.Waiting) > 0 {
		c.t.Errorf("settled, and yet waiting: %v", again.Waiting)
	}
	again.Changes = res.Changes
	return again
}

func (c *cluster) compare(whole, incremental Result) {
	c.t.Helper()
	if !equality.Semantic.DeepEqual(whole.Changes, incremental.Changes) {
		c.t.Errorf("the Planner plans otherwise (-Plan +Planner):\n%s", cmp.Diff(describe(whole.Changes), describe(incremental.Changes)))
	}
	if whole.Settled != incremental.Settled || !whole.Recheck.Equal(incremental.Recheck) || !maps.Equal(whole.Waiting, incremental.Waiting) {
		c.t.Errorf("the Planner concludes otherwise: Plan %v %v %v, Planner %v %v %v",
			whole.Settled, whole.Recheck, whole.Waiting, incremental.Settled, incremental.Recheck, incremental.Waiting)
	}
}

func (c *cluster) apply(changes []Change) {
	c.t.Helper()
	written := map[string]bool{}
	for _, ch := range changes {
		key, n := "", 0
		if ch.Assign != nil {
			key, n = string(ch.Assign.Node)+"/"+podKey(&ch.Assign.Pod).String(), n+1
			c.assign(stored(c.t, *ch.Assign))
		}
		if ch.Unassign != nil {
			key, n = string(ch.Unassign.Node)+"/"+ch.Unassign.Pod.String(), n+1
			c.unassign(ch.Unassign.Node, ch.Unassign.Pod)
		}
		if ch.Put != nil {
			key, n = "actual/"+schema.KeyOf(ch.Put).String(), n+1
			c.put(ch.Put)
		}
		if ch.Delete != nil {
			key, n = "actual/"+ch.Delete.String(), n+1
			c.delete(*ch.Delete)
		}
		if n != 1 {
			c.t.Errorf("change has %d writes: %+v", n, ch)
		}
		if written[key] {
			c.t.Errorf("plan writes %s twice", key)
		}
		written[key] = true
		if ch.About == (schema.ObjectKey{}) || ch.Message == "" || (ch.Type == "") != (ch.Event == "" || ch.Event == "Adopted") {
			c.t.Errorf("change without its reason: %s", describe([]Change{ch}))
		}
	}
}

func (c *cluster) assign(a schema.Assignment) {
	if c.w.Assignments[a.Node] == nil {
		c.w.Assignments[a.Node] = map[schema.PodKey]schema.Assignment{}
	}
	c.w.Assignments[a.Node][podKey(&a.Pod)] = a
	c.planner.SetAssignment(a.Node, podKey(&a.Pod), &a)
}

func (c *cluster) unassign(n schema.NodeName, k schema.PodKey) {
	if _, ok := c.w.Assignments[n][k]; !ok {
		c.t.Errorf("unassigns %s from %s, which does not have it", k, n)
	}
	delete(c.w.Assignments[n], k)
	c.planner.SetAssignment(n, k, nil)
}

func (c *cluster) put(o schema.Object) {
	k := schema.KeyOf(o)
	if p, ok := o.(*PendingPod); ok {
		text, err := json.Marshal(p)
		if err != nil {
			c.t.Fatalf("encode: %v", err)
		}
		var r schema.PodReport
		if err := json.Unmarshal(text, &r); err != nil {
			c.t.Fatalf("decode: %v", err)
		}
		c.report(r)
		return
	}
	o = storedObject(c.t, o)
	if rs, ok := o.(*appsv1.ReplicaSet); ok && rs.Spec.Selector != nil {
		c.w.ReplicaSets[k] = rs
		c.planner.SetReplicaSet(k, rs)
		delete(c.w.Status, k) // one key holds either
		c.planner.SetStatus(k, nil)
		return
	}
	delete(c.w.ReplicaSets, k)
	c.planner.SetReplicaSet(k, nil)
	c.w.Status[k] = o
	c.planner.SetStatus(k, o)
}

func (c *cluster) delete(k schema.ObjectKey) {
	pk := schema.PodKey{Namespace: k.Namespace, Name: k.Name}
	_, isReport := c.w.Reports[pk]
	switch {
	case k.Kind == schema.Pods && isReport:
		delete(c.w.Reports, pk)
		c.planner.SetReport(pk, nil)
	case c.w.ReplicaSets[k] != nil:
		delete(c.w.ReplicaSets, k)
		c.planner.SetReplicaSet(k, nil)
	case c.w.Status[k] != nil:
		delete(c.w.Status, k)
		c.planner.SetStatus(k, nil)
	default:
		c.t.Errorf("deletes %s, which is not there", k)
	}
}

func (c *cluster) report(r schema.PodReport) {
	r = stored(c.t, r)
	c.w.Reports[podKey(&r.Pod)] = r
	c.planner.SetReport(podKey(&r.Pod), &r)
}

// node tells of a node.
func (c *cluster) node(name schema.NodeName, cpu, memory, pods string, change func(*corev1.Node)) {
	n := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: string(name)}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse(pods),
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if change != nil {
		change(n)
	}
	c.w.Nodes[name] = n
	c.planner.SetNode(name, n)
}

func (c *cluster) loseNode(name schema.NodeName) {
	delete(c.w.Nodes, name)
	c.planner.SetNode(name, nil)
}

// assignments lists all of them, by node and name.
func (c *cluster) assignments() []schema.Assignment {
	var all []schema.Assignment
	for _, n := range slices.Sorted(maps.Keys(c.w.Assignments)) {
		for _, k := range slices.SortedFunc(maps.Keys(c.w.Assignments[n]), comparePodKeys) {
			all = append(all, c.w.Assignments[n][k])
		}
	}
	return all
}

// say reports a pod from its node with a phase and readiness.
func (c *cluster) say(a schema.Assignment, phase corev1.PodPhase, ready bool) {
	r := schema.PodReport{Node: a.Node, Pod: *a.Pod.DeepCopy()}
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	since := metav1.NewTime(c.now)
	start := stamp(c.now)
	if old, ok := c.w.Reports[podKey(&a.Pod)]; ok && old.Pod.UID == a.Pod.UID {
		if old.Pod.Status.StartTime != nil {
			start = *old.Pod.Status.StartTime
		}
		for _, cond := range old.Pod.Status.Conditions {
			if cond.Type == corev1.PodReady && cond.Status == status {
				since = cond.LastTransitionTime
			}
		}
	}
	r.Pod.Status = corev1.PodStatus{Phase: phase, StartTime: &start, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: since}}}
	c.report(r)
}

// settle lets the nodes do at once all they are told, and time pass, until
// nothing changes any more.
func (c *cluster) settle(steps int) Result {
	c.t.Helper()
	var res Result
	for range steps {
		res = c.plan()
		c.obey()
		if res.Settled && len(res.Changes) == 0 {
			return res
		}
		c.now = c.now.Add(time.Second)
		if !res.Recheck.IsZero() && res.Recheck.After(c.now) {
			c.now = res.Recheck
		}
	}
	c.t.Fatalf("not settled after %d steps: %v\n%s", steps, res.Waiting, describe(res.Changes))
	return res
}

// obey starts and stops on the nodes whatever is assigned.
func (c *cluster) obey() {
	for _, a := range c.assignments() {
		r, known := c.w.Reports[podKey(&a.Pod)]
		known = known && r.Node == a.Node && r.Pod.UID == a.Pod.UID
		switch {
		case a.Pod.DeletionTimestamp != nil:
			c.report(schema.PodReport{Node: a.Node, Pod: a.Pod, Gone: true})
		case !known || r.Pod.Status.Phase == corev1.PodPending:
			c.say(a, corev1.PodRunning, true)
		case r.Pod.Status.Phase == corev1.PodRunning:
			c.say(a, corev1.PodRunning, true)
		}
	}
}

func TestAClusterIsBuiltAndTakenDown(t *testing.T) {
	c := newCluster(t)
	c.node("n1", "4", "8Gi", "110", nil)
	d := deployment("web", 3, "web:1")
	c.git[schema.KeyOf(d)] = d
	p := barePod("one", "one:1")
	c.git[schema.KeyOf(p)] = p
	c.push()
	c.settle(10)
	if n := len(c.assignments()); n != 4 {
		t.Fatalf("%d pods, want 4", n)
	}
	clear(c.git)
	c.push()
	c.settle(10)
	if len(c.assignments()) != 0 || len(c.w.Reports) != 0 || len(c.w.ReplicaSets) != 0 || len(c.w.Status) != 0 {
		t.Fatalf("left over: %v %v %v %v", c.assignments(), c.w.Reports, c.w.ReplicaSets, c.w.Status)
	}
	if len(c.planner.roots)+len(c.planner.pods)+len(c.planner.sets)+len(c.planner.loose) != 0 {
		t.Errorf("the Planner remembers what is gone: %d roots, %d pods", len(c.planner.roots), len(c.planner.pods))
	}
}

func deployment(name string, replicas int32, image string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: map[string]string{schema.AnnotationSource: name + ".yaml:1"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec(image)},
		},
	}
}

func barePod(name, image string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: map[string]string{schema.AnnotationSource: name + ".yaml:1"}},
		Spec:       podSpec(image),
	}
}

func podSpec(image string) corev1.PodSpec {
	return corev1.PodSpec{
		Containers:    []corev1.Container{{Name: "main", Image: image, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}}}},
		RestartPolicy: corev1.RestartPolicyAlways,
	}
}

// must is for tests that build on what they cannot do without.
func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}
