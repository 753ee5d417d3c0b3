package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func quantity(s string) resource.Quantity { return resource.MustParse(s) }

func barePod(name string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](30),
			Containers:                    []corev1.Container{{Name: "main", Image: "web:1"}},
		},
	}
}

func one(name string) schema.PodKey { return schema.PodKey{Namespace: "default", Name: name} }

// A pod is restarted through the running loop: it ends, survives as an order the
// daemon's end, and is made again once it is gone.
func TestRestartPod(t *testing.T) {
	r := newLoopRig(t)
	stop := r.serve()
	r.until("views", r.views.whole)
	r.node("n1")
	r.push("aaaaaaaa", barePod("one"))
	r.until("assigned", func() bool { return len(r.assigned()) == 1 })
	before := r.assigned()["one"]
	r.report(schema.PodReport{Node: "n1", Pod: before})

	for what, c := range map[string]struct {
		pod  string
		uid  types.UID
		want error
	}{
		"no such pod": {"two", "", schema.ErrNotFound},
		"another uid": {"one", "of-another", schema.ErrConflict},
	} {
		if _, err := r.RestartPod(t.Context(), one(c.pod), c.uid, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ctx := access.WithUser(t.Context(), access.User{Name: "ann"})
	p, err := r.RestartPod(ctx, one("one"), before.UID, ptr.To[int64](7))
	r.must(err)
	if p.DeletionTimestamp == nil || *p.DeletionGracePeriodSeconds != 7 || p.UID != before.UID {
		t.Errorf("it ends as %v within %v", p.DeletionTimestamp, p.DeletionGracePeriodSeconds)
	}

	// The order is stored: another run of the daemon knows it.
	stop()
	r.conn.Close()
	r.open()
	stop = r.serve()
	defer stop()
	r.until("views", r.views.whole)
	r.push("aaaaaaaa", barePod("one"))
	if now := r.assigned()["one"]; now.DeletionTimestamp == nil || *now.DeletionGracePeriodSeconds != 7 {
		t.Fatalf("after a restart of the daemon: %+v", now.ObjectMeta)
	}
	if p, err = r.RestartPod(ctx, one("one"), "", ptr.To[int64](2)); err != nil || *p.DeletionGracePeriodSeconds != 2 {
		t.Errorf("a shorter grace period: %v, %v", p, err)
	}
	r.report(schema.PodReport{Node: "n1", Pod: before, Gone: true})
	r.until("made again", func() bool {
		now, ok := r.assigned()["one"]
		return ok && now.UID != before.UID && now.DeletionTimestamp == nil
	})
}

// Many orders at once, some for the same pod, while nodes report: each is
// answered, and each pod is ended once.
func TestManyRestarts(t *testing.T) {
	r := newLoopRig(t)
	stop := r.serve()
	defer stop()
	r.until("views", r.views.whole)
	r.node("n1")
	const pods = 30
	var objects []schema.Object
	for i := range pods {
		objects = append(objects, barePod(fmt.Sprint("p", i)))
	}
	r.push("aaaaaaaa", objects...)
	r.until("assigned", func() bool { return len(r.assigned()) == pods })
	var all sync.WaitGroup
	for i := range 3 * pods {
		all.Go(func() {
			if _, err := r.RestartPod(t.Context(), one(fmt.Sprint("p", i%pods)), "", nil); err != nil {
				t.Errorf("p%d: %v", i%pods, err)
			}
		})
	}
	all.Wait()
	for name, p := range r.assigned() {
		if p.DeletionTimestamp == nil {
			t.Errorf("%s is not ending", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.RestartPod(ctx, one("p0"), "", nil); err != nil && !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("nobody waits: %v", err)
	}
}

// Somebody else wrote the assignment first: the order is decided anew.
func TestRestartAfterAConflict(t *testing.T) {
	r := newLoopRig(t)
	r.background(r.views.run)
	r.until("views", r.views.whole)
	c := r.views.subscribe()
	defer c.close()
	step := func() {
		t.Helper()
		_, err := r.step(t.Context(), c, now())
		r.must(err)
	}
	r.node("n1")
	r.until("node", func() bool { return r.views.actual.Len() == 1 })
	r.push("aaaaaaaa", barePod("one"))
	step()
	// The key changes behind the loop's back.
	key := kv.AssignmentKey("n1", one("one"))
	e, _ := r.views.assignments.Get(key)
	e.Value.Pod.Labels = map[string]string{"changed": "elsewhere"}
	w, err := r.encode(kv.Assignments, key, e.Value)
	r.must(err)
	_, err = r.store.Commit(t.Context(), []kv.Write{w})
	r.must(err)
	done := make(chan error, 1)
	go func() {
		_, err := r.RestartPod(t.Context(), one("one"), "", nil)
		done <- err
	}()
	r.until("ordered", func() bool {
		r.restarts.mu.Lock()
		defer r.restarts.mu.Unlock()
		return len(r.restarts.queue) == 1
	})
	step()
	r.must(<-done)
	if p := r.assigned()["one"]; p.DeletionTimestamp == nil || p.Labels["changed"] == "" {
		t.Errorf("%+v", p.ObjectMeta)
	}
}
