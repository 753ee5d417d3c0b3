package feed

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func TestOrderHoldsWhatMayBeOvertaken(t *testing.T) {
	o := newOrder()
	ms := func(n int64) time.Time { return at(0).Add(time.Duration(n) * time.Millisecond) }
	k := key(schema.Pods, "shop", "web")
	found := func(stored int64) answer { return answer{k, &corev1.Pod{}, ms(stored)} }

	safe := o.safe([4]time.Time{ms(10)}, ms(12))
	if o.hold(found(10), safe, ms(12)) {
		t.Error("one stream on the move holds its own change up")
	}
	safe = o.safe([4]time.Time{ms(10), ms(15)}, ms(16))
	if !o.hold(found(15), safe, ms(16)) || o.hold(found(9), safe, ms(16)) || o.hold(answer{key: k}, safe, ms(16)) {
		t.Error("the first stream may be behind the second")
	}
	safe = o.safe([4]time.Time{ms(10), ms(15)}, ms(20))
	if o.hold(found(15), safe, ms(20)) {
		t.Error("the first stream does not move any more")
	}
	for now := int64(16); now < 46; now += 2 { // the first stream lags on and on
		safe = o.safe([4]time.Time{ms(now - 5), ms(now)}, ms(now))
		if !o.hold(found(now), safe, ms(now)) {
			t.Errorf("not held at %d", now)
		}
	}
	safe = o.safe([4]time.Time{ms(41), ms(46)}, ms(46))
	if o.hold(found(46), safe, ms(46)) {
		t.Error("held for ever")
	}
	if safe = o.safe([4]time.Time{}, ms(100)); !safe.IsZero() {
		t.Error("a store that was wiped is waited for")
	}
}

// Two writers at full speed, the planner's and the gateway's, each with a stream
// of its own: versions are the times of the store all the same.
func TestTwoWritersAtOnce(t *testing.T) {
	s := newServer(t)
	c := newControl(t, s.store, time.Minute, patient)
	const n = 300
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := range n {
			c.assign("n1", webPod(fmt.Sprint("a-", i), types.UID(fmt.Sprint("a", i))))
		}
	})
	writers.Go(func() {
		for i := range n {
			c.report("n1", webPod(fmt.Sprint("r-", i), types.UID(fmt.Sprint("r", i))), corev1.PodRunning, false)
		}
	})
	writers.Wait()
	c.quiet()
	items, _ := c.cache.List(schema.Pods, "shop")
	raised := 0
	for _, i := range items {
		var stored time.Time
		if e, ok := c.assignments.Get(kv.AssignmentKey("n1", schema.PodKey{Namespace: "shop", Name: i.Key.Name})); ok {
			stored = e.Stored
		}
		if e, ok := c.actual.Get(kv.ObjectKey(i.Key)); ok {
			stored = later(stored, e.Stored)
		}
		if i.Version != version(stored) {
			raised++
		}
	}
	if len(items) != 2*n || raised > n/4 { // some, on a machine that does much else
		t.Errorf("%d of %d versions were raised", raised, len(items))
	}
}

// BenchmarkStoreToWatchers is the time from a write that the store has taken to
// the last of 1,000 watchers of one namespace having its encoding.
func BenchmarkStoreToWatchers(b *testing.B) {
	c := newControl(b, newServer(b).store, time.Minute)
	var all, round sync.WaitGroup
	ctx, cancel := context.WithCancel(b.Context())
	for range 1000 {
		w := must[*cache.Watcher](b)(c.cache.Watch(schema.Pods, "shop", c.cache.Version()))
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
	var taken time.Duration
	for b.Loop() {
		round.Add(1000)
		p := webPod("web", "u1")
		p.Generation = int64(b.N)
		c.assign("n1", p)
		began := time.Now()
		round.Wait()
		taken += time.Since(began)
	}
	b.ReportMetric(float64(taken.Microseconds())/1000/float64(b.N), "ms/change")
	cancel()
	all.Wait()
}
