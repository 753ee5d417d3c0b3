package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/pawl-project/pawl/schema"
)

func key(namespace, name string) schema.ObjectKey {
	return schema.ObjectKey{Kind: schema.Pods, Namespace: namespace, Name: name}
}

func pod(namespace, name, host string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{NodeName: host, Containers: []corev1.Container{{Name: "main", Image: "web:7"}}},
	}
}

func put(c *Cache, namespace, name, host string, version uint64) {
	c.Put(key(namespace, name), pod(namespace, name, host), version)
}

func names(items []*Item) []string {
	var all []string
	for _, i := range items {
		all = append(all, i.Key.Namespace+"/"+i.Key.Name)
	}
	return all
}

// next is the event that is there now; it fails when there is none.
func next(t *testing.T, w *Watcher) Event {
	t.Helper()
	e, wake, err := w.look()
	if err != nil || wake != nil {
		t.Fatalf("no event: %v", err)
	}
	return e
}

func none(t *testing.T, w *Watcher) {
	t.Helper()
	if e, wake, err := w.look(); err != nil || wake == nil {
		t.Fatalf("event %v %s, error %v", e.Type, e.Item.Key, err)
	}
}

func TestGetAndList(t *testing.T) {
	c := New(Options{})
	put(c, "b", "x", "n1", 10)
	put(c, "a", "z", "n1", 20)
	put(c, "a", "y", "n1", 5)
	put(c, "a-1", "y", "n1", 0)
	i, ok := c.Get(key("a", "y"))
	if !ok || i.Version != 21 || i.Object().GetResourceVersion() != "21" {
		t.Errorf("a version below the newest is raised: %+v", i)
	}
	if gvk := i.Object().GetObjectKind().GroupVersionKind(); gvk.Kind != "Pod" || gvk.Version != "v1" {
		t.Errorf("TypeMeta %v", gvk)
	}
	items, version := c.List(schema.Pods, "")
	if got := names(items); version != 22 || !slices.Equal(got, []string{"a/y", "a/z", "a-1/y", "b/x"}) {
		t.Errorf("list at %d: %v", version, got)
	}
	items[0] = nil // the slice is ours
	if items, _ := c.List(schema.Pods, "a"); !slices.Equal(names(items), []string{"a/y", "a/z"}) {
		t.Errorf("in a namespace: %v", names(items))
	}
	c.Delete(key("a", "y"), 0)
	c.Delete(key("a", "y"), 0)
	if _, ok := c.Get(key("a", "y")); ok || c.Version() != 23 {
		t.Errorf("deleted: still there %v, version %d", ok, c.Version())
	}
	if items, version := c.List(schema.Deployments, ""); len(items) != 0 || version != 23 {
		t.Errorf("of another kind: %v, %d", items, version)
	}
}

func TestPutOfTheSameIsNoEvent(t *testing.T) {
	c := New(Options{})
	w, err := c.Watch(schema.Pods, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	put(c, "a", "x", "n1", 10)
	put(c, "a", "x", "n1", 10)
	put(c, "a", "x", "n1", 9)
	if e := next(t, w); e.Type != watch.Added || e.Version != 10 || e.Old != nil {
		t.Errorf("event %+v", e)
	}
	none(t, w)
	put(c, "a", "x", "n1", 11) // the same, but stored anew: so it would come back after a restart
	if e := next(t, w); e.Type != watch.Modified || e.Version != 11 || e.Old.Version != 10 {
		t.Errorf("event %+v", e)
	}
	put(c, "a", "x", "n2", 11) // another content, whatever its version
	if e := next(t, w); e.Type != watch.Modified || e.Version != 12 {
		t.Errorf("event %+v", e)
	}
	c.Delete(key("a", "x"), 0)
	e := next(t, w)
	if e.Type != watch.Deleted || e.Version != 13 || e.Item.Object().GetResourceVersion() != "13" || e.Old.Object().GetResourceVersion() != "12" {
		t.Errorf("event %+v", e)
	}
	if p := e.Item.Object().(*corev1.Pod); p.Spec.NodeName != "n2" {
		t.Errorf("the last state is lost: %v", p)
	}
}

func TestWindow(t *testing.T) {
	c := New(Options{Window: 3})
	slow, err := c.Watch(schema.Pods, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for v := range uint64(5) {
		put(c, "a", "x", fmt.Sprint(v), 10*(v+1))
	}
	if _, err := slow.Next(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("a watcher that fell behind: %v", err)
	}
	for from, want := range map[uint64][]uint64{20: {30, 40, 50}, 25: {30, 40, 50}, 30: {40, 50}, 39: {40, 50}, 50: nil} {
		w, err := c.Watch(schema.Pods, "", from)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range want {
			if e := next(t, w); e.Version != v {
				t.Errorf("from %d: event %d, want %d", from, e.Version, v)
			}
		}
		none(t, w)
		if w.Version() != 50 {
			t.Errorf("from %d: come to %d", from, w.Version())
		}
		w.Close()
	}
	_, err = c.Watch(schema.Pods, "", 19)
	if !errors.Is(err, ErrGone) || err.Error() != "too old resource version: 19 (20)" {
		t.Errorf("from before the window: %v", err)
	}
	if events, err := c.Between(schema.Pods, "", 20, 40); err != nil || len(events) != 2 || events[1].Version != 40 {
		t.Errorf("between: %v, %v", events, err)
	}
	if _, err := c.Between(schema.Pods, "", 10, 40); !errors.Is(err, ErrGone) {
		t.Errorf("between: %v", err)
	}
}

// What the window keeps in memory is bounded, too.
func TestWindowIsBoundedInBytes(t *testing.T) {
	c := New(Options{WindowBytes: 100 << 10})
	big := make([]byte, 10<<10)
	for i := range big {
		big[i] = 'x'
	}
	for v := range 1000 {
		p := pod("a", "x", fmt.Sprint(v))
		p.Annotations = map[string]string{"big": string(big)}
		c.Put(key("a", "x"), p, 0)
		put(c, "a", fmt.Sprint("small-", v%10), fmt.Sprint(v), 0)
	}
	s := c.Stats()
	if c.kept > 100<<10+c.held/4 || s.Events < 3 || s.Events > 100 || s.Objects != 11 {
		t.Errorf("kept %d bytes beside %d: %+v", c.kept, c.held, s)
	}
	sum := 0
	for n := c.shelves[schema.Pods].ring.first; n < c.shelves[schema.Pods].ring.end(); n++ {
		sum += c.shelves[schema.Pods].ring.at(n).weight()
	}
	if sum != c.kept || sum != c.shelves[schema.Pods].ring.kept {
		t.Errorf("books say %d, the ring %d", c.kept, sum)
	}
}

// Versions of a first picture are those that its objects come with, each time.
func TestLoad(t *testing.T) {
	load := func(order ...int) *Cache {
		all := []Loaded{
			{key("a", "x"), pod("a", "x", "n1"), 300}, {key("a", "y"), pod("a", "y", "n1"), 100},
			{key("b", "z"), pod("b", "z", "n1"), 200}, {key("b", "y"), pod("b", "y", "n1"), 200},
		}
		var objects []Loaded
		for _, i := range order {
			objects = append(objects, all[i])
		}
		c := New(Options{})
		c.Load(objects, 1000)
		return c
	}
	for _, c := range []*Cache{load(0, 1, 2, 3), load(3, 2, 1, 0)} {
		items, version := c.List(schema.Pods, "")
		var got []uint64
		for _, i := range items {
			got = append(got, i.Version)
		}
		if version != 1000 || !slices.Equal(got, []uint64{300, 100, 200, 201}) {
			t.Errorf("versions %v at %d", got, version)
		}
		for _, kind := range []schema.Kind{schema.Pods, schema.Services} {
			if _, err := c.Watch(kind, "", 999); !errors.Is(err, ErrGone) {
				t.Errorf("what happened to %s before the picture is not known: %v", kind, err)
			}
			w, err := c.Watch(kind, "", 1000)
			if err != nil {
				t.Fatal(err)
			}
			none(t, w)
			w.Close()
		}
	}
}

func TestVersionsOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		put(c, "a", "x", "n1", 10)
		w, err := c.Watch(schema.Pods, "", 15)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var large *TooLarge
		if _, err := w.Next(t.Context()); !errors.As(err, &large) || *large != (TooLarge{15, 10}) || !errors.Is(err, schema.ErrUnavailable) {
			t.Errorf("a version that does not come: %v", err)
		}
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("waited %v", d)
		}
		w, _ = c.Watch(schema.Pods, "", 15)
		go func() {
			time.Sleep(time.Second)
			put(c, "a", "x", "n2", 12) // before what the watcher has seen
			put(c, "a", "x", "n3", 15) // seen
			put(c, "a", "x", "n4", 16)
		}()
		if e, err := w.Next(t.Context()); err != nil || e.Version != 16 {
			t.Errorf("event %+v, %v", e, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Wait(ctx, 17); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait: %v", err)
		}
		if err := c.Wait(ctx, 16); err != nil {
			t.Errorf("wait for what is there: %v", err)
		}
	})
}

func TestCloseAndContextEndNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		w, _ := c.Watch(schema.Pods, "", 0)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		time.AfterFunc(time.Second, w.Close)
		if _, err := w.Next(t.Context()); err == nil {
			t.Error("closed, and still an event")
		}
		w.Close()
		if n := c.Stats().Watchers; n != 0 {
			t.Errorf("%d watchers are left", n)
		}
	})
}

func TestEncodings(t *testing.T) {
	c := New(Options{EncodedBytes: 100_000, AheadBytes: -1})
	put(c, "a", "x", "n1", 10)
	i, _ := c.Get(key("a", "x"))
	var back corev1.Pod
	if err := json.Unmarshal(i.JSON(), &back); err != nil || back.ResourceVersion != "10" || back.Kind != "Pod" {
		t.Errorf("%s: %v", i.JSON(), err)
	}
	if err := back.Unmarshal(i.Proto()); err != nil || back.ResourceVersion != "10" {
		t.Errorf("protobuf: %v", err)
	}
	if &i.JSON()[0] != &i.JSON()[0] || &i.Proto()[0] != &i.Proto()[0] {
		t.Error("encoded twice")
	}
	r := schema.NewRevisionObject(&schema.RevisionRecord{Commit: "abc"})
	c.Put(schema.ObjectKey{Kind: schema.Revisions, Name: "abc"}, r, 0)
	if rev, _ := c.Get(schema.ObjectKey{Kind: schema.Revisions, Name: "abc"}); rev.Proto() != nil || len(rev.JSON()) == 0 {
		t.Error("a revision has JSON only")
	}
	put(c, "a", "x", "n2", 0) // i is in the window now
	j, _ := c.Get(key("a", "x"))
	c.Delete(key("a", "x"), 0)
	for _, x := range []*Item{i, j} {
		x.JSON()
	}
	c.Sweep()
	j.JSON()
	c.Sweep()
	if i.json.Load() != nil || i.proto.Load() != nil || j.json.Load() == nil {
		t.Error("not swept, or too early")
	}
	c.Sweep()
	c.Sweep()
	if n := c.Stats().EncodedBytes; n != 0 {
		t.Errorf("%d bytes are said to be kept", n)
	}
	for n := range 1000 {
		put(c, "b", fmt.Sprint(n), "n1", 0)
	}
	items, _ := c.List(schema.Pods, "b")
	for _, i := range items {
		i.JSON()
	}
	if n := c.Stats().EncodedBytes; n > 100_000 || n < 50_000 {
		t.Errorf("%d bytes kept of at most 100,000", n)
	}
}

// Objects are encoded when they come, within bounds, and stay so while they are
// there; what they were before goes.
func TestEncodingsAhead(t *testing.T) {
	const ahead = 100_000
	c := New(Options{AheadBytes: ahead})
	put(c, "a", "x", "n1", 10)
	old, _ := c.Get(key("a", "x"))
	put(c, "a", "x", "n2", 20)
	c.Put(schema.ObjectKey{Kind: schema.Secrets, Namespace: "a", Name: "s"}, &corev1.Secret{}, 0)
	for range 4 {
		c.Sweep()
	}
	i, _ := c.Get(key("a", "x"))
	if i.json.Load() == nil || i.proto.Load() == nil {
		t.Error("an object that is there is not encoded")
	}
	if old.json.Load() != nil || old.proto.Load() != nil {
		t.Error("an object as it was is still encoded")
	}
	if s, _ := c.Get(schema.ObjectKey{Kind: schema.Secrets, Namespace: "a", Name: "s"}); s.json.Load() != nil {
		t.Error("a Secret is encoded, which is never answered as it is")
	}
	if n := c.Stats().EncodedBytes; n != len(i.JSON())+len(i.Proto()) {
		t.Errorf("%d bytes are said to be kept", n)
	}
	for n := range 1000 {
		put(c, "b", fmt.Sprint(n), "n1", 0)
	}
	c.Sweep()
	if n := c.Stats().EncodedBytes; n > ahead || n < ahead/2 {
		t.Errorf("%d bytes encoded ahead of at most %d", n, ahead)
	}
	items, _ := c.List(schema.Pods, "b")
	for _, i := range items {
		i.JSON()
	}
	for range 4 {
		c.Sweep()
	}
	if n := c.Stats().EncodedBytes; n > ahead+10_000 || n < ahead/2 {
		t.Errorf("%d bytes stay of at most %d", n, ahead)
	}
}

// The window is of minutes: who is idle holds no events.
func TestEventsAge(t *testing.T) {
	c := New(Options{})
	put(c, "a", "x", "n1", 10)
	c.Sweep()
	put(c, "a", "x", "n2", 20)
	for range 9 {
		c.Sweep()
	}
	if _, err := c.Watch(schema.Pods, "", 0); err != nil {
		t.Errorf("too early: %v", err)
	}
	c.Sweep()
	if _, err := c.Watch(schema.Pods, "", 0); !errors.Is(err, ErrGone) {
		t.Errorf("from before the window: %v", err)
	}
	w, err := c.Watch(schema.Pods, "", 10)
	if err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.Version != 20 {
		t.Errorf("event %d", e.Version)
	}
	c.Sweep()
	if s := c.Stats(); s.Events != 0 || c.kept != 0 || c.shelves[schema.Pods].ring.events != nil {
		t.Errorf("kept: %+v, %d bytes", s, c.kept)
	}
	if _, err := c.Watch(schema.Pods, "", 19); !errors.Is(err, ErrGone) {
		t.Errorf("from before the window: %v", err)
	}
	none(t, w) // it had seen all, and goes on
	put(c, "a", "x", "n3", 30)
	if e := next(t, w); e.Version != 30 || e.Old.Version != 20 {
		t.Errorf("event %+v", e)
	}
}

// Readers of every sort beside one writer; for the race detector.
func TestEverybodyAtOnce(t *testing.T) {
	c := New(Options{Window: 64})
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for ctx.Err() == nil {
				items, version := c.List(schema.Pods, "")
				for _, i := range items {
					i.JSON()
					i.Proto()
				}
				w, err := c.Watch(schema.Pods, "a", version)
				for err == nil {
					var e Event
					if e, err = w.Next(ctx); err == nil && len(e.Item.JSON()) == 0 {
						t.Error("empty")
					}
					w.Version()
				}
				if w != nil {
					w.Close()
				}
			}
		})
	}
	for n := range 5000 {
		put(c, string(rune('a'+n%2)), fmt.Sprint(n%20), fmt.Sprint(n), 0)
		if n%7 == 0 {
			c.Delete(key("a", fmt.Sprint(n%20)), 0)
		}
		if n%500 == 0 {
			c.Sweep()
		}
	}
	cancel()
	readers.Wait()
	if n := c.Stats().Watchers; n != 0 {
		t.Errorf("%d watchers are left", n)
	}
}
