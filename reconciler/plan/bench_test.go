package plan

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pawl-project/pawl/schema"
)

// thousand is 1,000 Deployments of 10 running pods each on 100 nodes.
func thousand(b *testing.B) *cluster {
	b.Helper()
	c := newCluster(b)
	for i := range 100 {
		c.node(schema.NodeName(fmt.Sprintf("n%03d", i)), "64", "256Gi", "1000", nil)
	}
	for i := range 1000 {
		d := deployment(fmt.Sprintf("app-%04d", i), 10, "web:1")
		d.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
		c.git[schema.KeyOf(d)] = d
	}
	c.push()
	for range 4 {
		c.apply(c.planner.Plan(c.now).Changes)
		c.obey()
		c.now = c.now.Add(time.Second)
	}
	if res := c.planner.Plan(c.now); !res.Settled {
		b.Fatalf("not settled: %s", describe(res.Changes))
	}
	return c
}

func BenchmarkWholePlan(b *testing.B) {
	c := thousand(b)
	for b.Loop() {
		if res := Plan(c.w, c.now); len(res.Changes) > 0 {
			b.Fatal(describe(res.Changes))
		}
	}
}

func BenchmarkOneReport(b *testing.B) {
	c := thousand(b)
	a := c.assignments()[500]
	ready := false
	for b.Loop() {
		r := c.w.Reports[podKey(&a.Pod)]
		r.Pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}[ready]}}
		ready = !ready
		c.planner.SetReport(podKey(&a.Pod), &r)
		c.planner.Plan(c.now)
	}
}

func BenchmarkHundredPodsAtOnce(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		c := newCluster(b)
		c.node("n1", "64", "256Gi", "1000", nil)
		d := deployment("web", 100, "web:1")
		c.git[schema.KeyOf(d)] = d
		c.push()
		b.StartTimer()
		if res := c.planner.Plan(c.now); len(res.Changes) != 102 {
			b.Fatal(len(res.Changes))
		}
	}
}

func BenchmarkDesireOneOf10000(b *testing.B) {
	stored := map[schema.ObjectKey]schema.Object{}
	rev := schema.Revision{Commit: schema.Commit{ID: "c1"}}
	for i := range 10000 {
		d := deployment(fmt.Sprintf("app-%05d", i), 10, "web:1")
		stored[schema.KeyOf(d)] = storedObject(b, d)
		if i == 5000 {
			d.Spec.Template.Spec.Containers[0].Image = "web:2"
		}
		rev.Objects = append(rev.Objects, d)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b.Run("afresh", func(b *testing.B) {
		for b.Loop() {
			if d := Desire(rev, stored, nil, now); len(d.Put) != 1 {
				b.Fatal(len(d.Put))
			}
		}
	})
	b.Run("remembering", func(b *testing.B) {
		f := new(Differ)
		f.Desire(rev, stored, nil, now)
		for b.Loop() {
			if d := f.Desire(rev, stored, nil, now); len(d.Put) != 1 {
				b.Fatal(len(d.Put))
			}
		}
	})
}

// BenchmarkThousandPreempt has 1,000 important pods come to 1,000 nodes that are
// full: 2,000 of 10,000 pods are to end for them.
func BenchmarkThousandPreempt(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		c := newCluster(b)
		for i := range 1000 {
			c.node(schema.NodeName(fmt.Sprintf("n%04d", i)), "10", "256Gi", "1000", nil)
		}
		small := deployment("small", 10000, "web:1")
		small.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		c.git[schema.KeyOf(small)] = small
		c.push()
		c.apply(c.planner.Plan(c.now).Changes)
		c.obey()
		c.apply(c.planner.Plan(c.now).Changes)
		class := priorityClass("high", 5)
		big := deployment("big", 1000, "web:1")
		big.Spec.Template.Spec.PriorityClassName = "high"
		big.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
		c.git[schema.KeyOf(class)], c.git[schema.KeyOf(big)] = class, big
		c.push()
		c.now = c.now.Add(time.Minute)
		b.StartTimer()
		ended := 0
		for _, change := range c.planner.Plan(c.now).Changes {
			if change.Event == "Preempted" {
				ended++
			}
		}
		if ended != 2000 {
			b.Fatalf("%d pods end, 2000 would do", ended)
		}
	}
}
