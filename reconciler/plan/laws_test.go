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
	"pgregory.net/rapid"

	"github.com/pawl-project/pawl/schema"
)

// live lets things happen to a cluster, with plans between.
func live(t *rapid.T, c *cluster, check func(Result)) {
	c.node("n1", "4", "8Gi", "20", nil)
	c.assign(schema.Assignment{Node: "n1", Pod: foreignPod()})
	for range rapid.IntRange(1, 25).Draw(t, "events") {
		happen(t, c)
		if rapid.Bool().Draw(t, "plan") {
			check(c.plan())
		}
	}
}

// Whatever the nodes, constraints and priorities are: when the nodes do what
// they are told and nothing else happens, there comes a time when nothing is
// changed any more. No pod is moved to and fro, or made and ended for ever.
func TestNothingFlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		live(t, c, func(Result) {})
		c.w.KeepAll = false
		c.planner.KeepAll(false)
		c.push()
		if c.bearsForATime() {
			return // comes, leaves and may come back for ever, as with Kubernetes
		}
		var last []string
		for range 60 {
			res := c.plan()
			quiet := c.serve() == 0 && len(res.Changes) == 0
			if quiet && res.Recheck.IsZero() {
				return
			}
			last = append(last, describe(res.Changes))
			c.now = c.now.Add(11 * time.Second)
			if quiet && res.Recheck.After(c.now) {
				c.now = res.Recheck
			}
		}
		t.Fatalf("no peace; the last changes\n%s\nwith\n%s", strings.Join(last[len(last)-4:], "--\n"), c.describePods())
	})
}

// bearsForATime says whether a node drives pods away and one is wanted, or
// there, that bears it for a time.
func (c *cluster) bearsForATime() bool {
	bears := func(s *corev1.PodSpec) bool {
		return s != nil && slices.ContainsFunc(s.Tolerations, func(t corev1.Toleration) bool { return t.TolerationSeconds != nil })
	}
	if len(c.planner.repel) == 0 {
		return false
	}
	for _, o := range c.git {
		if bears(specOf(o)) {
			return true
		}
	}
	return slices.ContainsFunc(c.assignments(), func(a schema.Assignment) bool { return bears(&a.Pod.Spec) })
}

// An update keeps its limits though it is scaled, pods fail and nodes are slow
// to end pods: never more pods than replicas and surge, of the size that is
// wanted now, and what a plan ends leaves as many available as must be.
func TestAScaledUpdateKeepsItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		c.node("n1", "1000", "1000Gi", "10000", nil)
		surge, unavailable := limit(t, "surge"), limit(t, "unavailable")
		d := deployment("web", rapid.Int32Range(0, 8).Draw(t, "replicas"), "web:0")
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			was := *d.Spec.Replicas
			if rapid.IntRange(0, 4).Draw(t, "push") == 0 {
				d = d.DeepCopy()
				d.Spec.Template.Spec.Containers[0].Image = fmt.Sprintf("web:%d", rapid.IntRange(0, 3).Draw(t, "image"))
				*d.Spec.Replicas = rapid.Int32Range(0, 8).Draw(t, "replicas")
			}
			c.git[schema.KeyOf(d)] = d
			c.push()
			jostle(t, c)
			if rapid.IntRange(0, 5).Draw(t, "fail") == 0 {
				withAssignment(t, c, func(a schema.Assignment) { c.say(a, corev1.PodFailed, false) })
			}
			want := int(*d.Spec.Replicas)
			up, down := limits(d)
			before := availableNow(c, 0)
			c.plan()
			after, all := availableNow(c, 0), alive(c)
			if all > want+up {
				t.Fatalf("%d pods, with %d replicas and a surge of %d\n%s", all, want, up, c.describePods())
			}
			if after < before && after < want-down && int(was) == want {
				t.Fatalf("the plan left %d of %d available, %d must be\n%s", after, before, want-down, c.describePods())
			}
		}
		c.settle(120)
		checkRuns(t, c)
	})
}

// serve has the nodes do what they are told, and returns how many pods that was
// news for.
func (c *cluster) serve() int {
	news := 0
	gone := map[schema.PodKey]bool{}
	for _, a := range c.assignments() {
		k := podKey(&a.Pod)
		if a.Pod.DeletionTimestamp != nil && !gone[k] {
			gone[k] = true
			news++
			c.report(schema.PodReport{Node: a.Node, Pod: a.Pod, Gone: true})
		}
	}
	for _, a := range c.assignments() {
		if r, known := c.w.Reports[podKey(&a.Pod)]; !gone[podKey(&a.Pod)] {
			c.revive(a)
			if !known || r.Pod.UID != a.Pod.UID || r.Pod.Status.Phase == corev1.PodPending {
				news++
			}
		}
	}
	return news
}

// A pod is ended for another only when that one is more important and waits for
// the very node; and who is told so is one that may be ended.
func TestOnlyLessImportantPodsGiveWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		live(t, c, func(res Result) {
			waits := map[string]*corev1.Pod{}
			for _, r := range c.w.Reports {
				if r.Node == "" {
					waits[string(r.Pod.UID)] = &r.Pod
				}
			}
			for _, ch := range res.Changes {
				if ch.Event != "Preempted" {
					continue
				}
				victim := &ch.Assign.Pod
				uid, _, _ := strings.Cut(strings.TrimPrefix(ch.Message, "Preempted by pod "), " ")
				p := waits[uid]
				switch {
				case p == nil:
					t.Fatalf("%s: nobody of that uid waits", ch.Message)
				case rank(p) <= rank(victim):
					t.Fatalf("%s of priority %d ends for %s of %d", victim.Name, rank(victim), p.Name, rank(p))
				case p.Status.NominatedNodeName != string(ch.Assign.Node):
					t.Fatalf("%s ends on %s for %s, which waits for %q", victim.Name, ch.Assign.Node, p.Name, p.Status.NominatedNodeName)
				case victim.UID == "foreign":
					t.Fatal("what is not Pawl's ends")
				}
			}
		})
	})
}

// What is absent from the store is not therefore gone: while Desired may lack
// objects, nothing that runs is ended, unassigned or forgotten for what it lacks.
func TestAbsenceNeverMeansDelete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		live(t, c, func(Result) {})
		w := *c.w
		w.KeepAll = true
		w.Desired = maps.Clone(c.w.Desired)
		var lost []schema.ObjectKey
		for _, k := range sortedKeys(c.w.Desired) {
			if rapid.Bool().Draw(t, "lost") {
				delete(w.Desired, k)
				lost = append(lost, k)
			}
		}
		for _, ch := range Plan(&w, c.now).Changes {
			checkHarmless(t, c, &w, ch, lost)
		}
	})
}

func checkHarmless(t *rapid.T, c *cluster, w *World, ch Change, lost []schema.ObjectKey) {
	var pod *corev1.Pod
	switch {
	case ch.Assign != nil && ch.Assign.Pod.DeletionTimestamp != nil:
		if r := w.Reports[podKey(&ch.Assign.Pod)]; r.Pod.UID == ch.Assign.Pod.UID && r.Pod.DeletionTimestamp != nil {
			return // it ends, as its node says
		}
		pod = &ch.Assign.Pod
	case ch.Delete != nil && ch.Delete.Kind == schema.Pods:
		r := w.Reports[schema.PodKey{Namespace: ch.Delete.Namespace, Name: ch.Delete.Name}]
		if r.Gone {
			return
		}
		pod = &r.Pod
	case ch.Delete != nil && slices.Contains(lost, *ch.Delete):
		t.Fatalf("what the store lacks is deleted: %s", describe([]Change{ch}))
	default:
		return
	}
	if k, ok := rootOfPod(pod); !ok || slices.Contains(lost, k) {
		t.Fatalf("%s is lacking, and its pod ends: %s\n%s", k, describe([]Change{ch}), c.describePods())
	}
}

// A bare pod that leaves the repository ends on its node before anything of it
// is forgotten, and one that is in it is never without a trace.
func TestABarePodIsNeverLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		live(t, c, func(res Result) {
			for _, ch := range res.Changes {
				if ch.Unassign == nil {
					continue
				}
				if r := c.before[ch.Unassign.Pod]; !r.Gone || r.Node != ch.Unassign.Node {
					t.Fatalf("unassigned before it was gone: %s", describe([]Change{ch}))
				}
			}
			if len(c.w.Nodes) == 0 {
				return
			}
			for k, o := range c.w.Desired {
				if _, bare := o.(*corev1.Pod); bare && c.planner.pods[schema.PodKey{Namespace: k.Namespace, Name: k.Name}] == nil {
					t.Fatalf("%s is in the repository and nowhere else\n%s", k, describe(res.Changes))
				}
			}
		})
	})
}
