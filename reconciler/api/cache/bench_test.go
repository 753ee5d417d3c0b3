package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

func newService(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
}

// runningPod is about as large as a pod of a Deployment that runs.
func runningPod(name string) *corev1.Pod {
	p := pod("default", name, "n1")
	p.Labels = map[string]string{"app": "web", "pod-template-hash": "5d8c9f7b6d"}
	p.Annotations = map[string]string{
		schema.AnnotationRevision: "0123456789abcdef0123456789abcdef01234567",
		schema.AnnotationSource:   "apps/web.yaml:12", schema.AnnotationAuthor: "Some One <some.one@example.org>",
	}
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d8c9f7b6d", UID: "5f3c8f5e-8a55-8c55-8d55-0123456789ab"}}
	now := metav1.NewTime(time.Unix(1_790_000_000, 0))
	p.CreationTimestamp, p.UID = now, "5f3c8f5e-8a55-8c55-8d55-0123456789ac"
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.1.2.3", HostIP: "192.168.1.10", StartTime: &now}
	for _, t := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", Image: "web:7", Ready: true, ImageID: "docker.io/library/web@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
	}}
	return p
}

func filled(n int) *Cache {
	c := New(Options{AheadBytes: -1})
	for i := range n {
		name := fmt.Sprintf("web-5d8c9f7b6d-%05d", i)
		c.Put(key("default", name), runningPod(name), 0)
	}
	return c
}

func BenchmarkGet(b *testing.B) {
	c := filled(10_000)
	k := key("default", "web-5d8c9f7b6d-07777")
	b.ReportAllocs()
	for b.Loop() {
		i, _ := c.Get(k)
		_ = i.JSON()
	}
}

// BenchmarkList of 10,000 pods: joining what is encoded, and encoding it all.
func BenchmarkList(b *testing.B) {
	for _, form := range []struct {
		name   string
		encode func(*Item) []byte
	}{{"JSON", (*Item).JSON}, {"protobuf", (*Item).Proto}} {
		c := filled(10_000)
		list := func() {
			items, _ := c.List(schema.Pods, "")
			for _, i := range items {
				_ = form.encode(i)
			}
		}
		b.Run(form.name, func(b *testing.B) {
			list()
			for b.Loop() {
				list()
			}
		})
		b.Run(form.name+"/first", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				c.Sweep()
				c.Sweep()
				b.StartTimer()
				list()
			}
		})
	}
}

func BenchmarkPut(b *testing.B) {
	c := filled(10_000)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		name := fmt.Sprintf("web-5d8c9f7b6d-%05d", n%10_000)
		c.Put(key("default", name), runningPod(name), c.Version()+1)
		n++
	}
}

// BenchmarkWatchers is the time from a change to the last of 1,000 watchers of
// one namespace having its encoding.
func BenchmarkWatchers(b *testing.B) {
	c := filled(100)
	ctx, cancel := context.WithCancel(b.Context())
	var all, round sync.WaitGroup
	for range 1000 {
		w, err := c.Watch(schema.Pods, "default", c.Version())
		if err != nil {
			b.Fatal(err)
		}
		all.Go(func() {
			defer w.Close()
			for {
				e, err := w.Next(ctx)
				if err != nil {
					return
				}
				_ = e.Item.JSON()
				round.Done()
			}
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		round.Add(1000)
		c.Put(key("default", "web"), runningPod("web"), c.Version()+1)
		round.Wait()
	}
	cancel()
	all.Wait()
}
