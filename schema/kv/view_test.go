package kv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pawl-project/pawl/schema"
)

// contents is what a view shows.
func contents(v *View[string]) map[string]string {
	m := map[string]string{}
	for e := range v.All() {
		m[e.Key] = e.Value
	}
	return m
}

func TestViewFollowsTheBucket(t *testing.T) {
	s := newServer(t)
	store := s.store()
	revs := commit(t, store, put("b", "1", 0), put("a", "1", 0), put("c", "1", 0))
	commit(t, store, del("c", revs[2]))
	v := newTextView(t, store)
	if got := contents(v); !maps.Equal(got, map[string]string{"a": "1", "b": "1"}) {
		t.Errorf("view: %v", got)
	}
	var keys []string
	for e := range v.All() {
		keys = append(keys, e.Key)
	}
	if !slices.IsSorted(keys) || v.Len() != 2 {
		t.Errorf("keys %v, len %d", keys, v.Len())
	}
	if _, ok := v.Get("c"); ok {
		t.Error("a deleted key is there")
	}
	commit(t, store, put("a", "2", revs[1]), put("d", "1", 0), del("b", revs[0]))
	eventually(t, "changes arrive", func() bool {
		return maps.Equal(contents(v), map[string]string{"a": "2", "d": "1"})
	})
}

func TestOwnWritesAreVisibleAtOnce(t *testing.T) {
	store := newServer(t).store()
	v := newTextView(t, store)
	changes := v.Subscribe()
	defer changes.Close()
	w := put("a", "0", 0)
	for i := range 200 {
		w.Value = fmt.Append(nil, i)
		w.Revision = commit(t, store, w)[0]
		if err := v.Apply(w, w.Revision); err != nil {
			t.Fatal(err)
		}
		if e, ok := v.Get("a"); !ok || e.Value != fmt.Sprint(i) || e.Revision != w.Revision {
			t.Fatalf("after write %d: %+v, %v", i, e, ok)
		}
		select {
		case <-changes.C:
		default:
			t.Fatalf("write %d wakes nobody", i)
		}
		if keys := changes.Drain(); !slices.Equal(keys, []string{"a"}) {
			t.Fatalf("changed: %v", keys)
		}
	}
	d := del("a", w.Revision)
	if err := v.Apply(d, commit(t, store, d)[0]); err != nil {
		t.Fatal(err)
	}
	// The watch has yet to deliver older values; none may bring the key back.
	last := commit(t, store, put("end", "1", 0))[0]
	for {
		if _, ok := v.Get("a"); ok {
			t.Fatal("the deleted key is back")
		}
		if e, ok := v.Get("end"); ok && e.Revision == last {
			break
		}
		<-changes.C
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if len(v.now.gone) != 0 {
		t.Errorf("%d deletions are remembered though the watch has delivered them", len(v.now.gone))
	}
}

// What Apply brings may be older than what the watch brought in the meantime.
func TestLateApplyIsIgnored(t *testing.T) {
	store := newServer(t).store()
	v := newTextView(t, store)
	w := put("a", "1", 0)
	rev := commit(t, store, w)[0]
	commit(t, store, del("a", rev))
	commit(t, store, put("end", "1", 0))
	eventually(t, "the watch is past the deletion", func() bool { _, ok := v.Get("end"); return ok })
	if err := v.Apply(w, rev); err != nil {
		t.Fatal(err)
	}
	if _, ok := v.Get("a"); ok {
		t.Error("a write of before its deletion is visible")
	}
	if err := v.Apply(Write{Bucket: Actuals, Key: "a"}, 1); err == nil {
		t.Error("a write to another bucket is taken")
	}
}

func TestPoisonStopsOnlyItself(t *testing.T) {
	store := newServer(t).store()
	revs := commit(t, store, put("good", "1", 0), put("bad", "bad", 0), put("turns", "1", 0))
	v := newTextView(t, store)
	changes := v.Subscribe()
	defer changes.Close()
	changes.Drain()
	if got := contents(v); !maps.Equal(got, map[string]string{"good": "1", "turns": "1"}) {
		t.Errorf("view: %v", got)
	}
	if p := v.Poisoned(); len(p) != 1 || p["bad"] == nil {
		t.Errorf("poisoned: %v", p)
	}
	e, ok := v.Get("bad")
	if ok || e.Revision != revs[1] {
		t.Errorf("a poisoned key: %+v, %v; it can be healed only with revision %d", e, ok, revs[1])
	}
	turned := commit(t, store, put("turns", "bad", revs[2]))[0]
	eventually(t, "the second is poisoned", func() bool { return len(v.Poisoned()) == 2 })
	if e, ok := v.Get("turns"); !ok || e.Value != "1" || e.Revision != turned {
		t.Errorf("the last good value with the newest revision: %+v, %v", e, ok)
	}
	if keys := changes.Drain(); !slices.Equal(keys, []string{"turns"}) {
		t.Errorf("changed: %v", keys)
	}

	w := put("bad", "healed", e.Revision)
	if err := v.Apply(w, commit(t, store, w)[0]); err != nil {
		t.Fatal(err)
	}
	commit(t, store, del("turns", turned))
	eventually(t, "nothing is poisoned any more", func() bool { return len(v.Poisoned()) == 0 })
	if got := contents(v); !maps.Equal(got, map[string]string{"good": "1", "bad": "healed"}) {
		t.Errorf("view: %v", got)
	}
	w = put("own", "bad", 0)
	if err := v.Apply(w, commit(t, store, w)[0]); err == nil {
		t.Error("applying poison is no error")
	}
}

func TestSubscribersAreIndependent(t *testing.T) {
	store := newServer(t).store()
	rev := commit(t, store, put("before", "1", 0))[0]
	v := newTextView(t, store)
	a, b := v.Subscribe(), v.Subscribe()
	defer a.Close()
	<-a.C
	if keys := a.Drain(); !slices.Equal(keys, []string{"before"}) {
		t.Errorf("a new subscriber hears of what there is: %v", keys)
	}
	for i := range 100 {
		rev = commit(t, store, put("before", fmt.Sprint(i), rev))[0]
	}
	commit(t, store, put("x", "1", 0))
	eventually(t, "all arrived", func() bool { _, ok := v.Get("x"); return ok })
	for _, s := range []*Changes{a, b} {
		<-s.C
		if keys := s.Drain(); !slices.Equal(keys, []string{"before", "x"}) {
			t.Errorf("a slow subscriber hears of each key once: %v", keys)
		}
		if keys := s.Drain(); len(keys) != 0 {
			t.Errorf("twice: %v", keys)
		}
	}
	b.Close()
	commit(t, store, put("y", "1", 0))
	eventually(t, "all arrived", func() bool { _, ok := v.Get("y"); return ok })
	if keys := b.Drain(); len(keys) != 0 {
		t.Errorf("after Close: %v", keys)
	}
}

// The server restarts: the view says that it may be behind, comes back by
// itself, soon, and tells what changed.
func TestViewOutlivesTheServer(t *testing.T) {
	s := newServer(t)
	store := s.store()
	revs := commit(t, store, put("stays", "1", 0), put("changes", "1", 0), put("deleted", "1", 0))
	v := newTextView(t, store)
	changes := v.Subscribe()
	defer changes.Close()
	changes.Drain()
	for round := range 3 {
		s.stop()
		eventually(t, "the view is not whole", func() bool { return !v.Whole() })
		if v.Len() == 0 {
			t.Error("what the view held is not readable any more")
		}
		s.start()
		began := time.Now()
		eventually(t, "the view is whole again", v.Whole)
		t.Logf("round %d: whole %s after the start", round, time.Since(began).Round(time.Millisecond))
	}
	if v.Losses() != 0 {
		t.Error("something counts as lost")
	}
	eventually(t, "the store is there", func() bool {
		_, err := store.Commit(t.Context(), []Write{put("changes", "2", revs[1])})
		return err == nil
	})
	commit(t, store, del("deleted", revs[2]), put("new", "1", 0))
	eventually(t, "the watch goes on", func() bool {
		return maps.Equal(contents(v), map[string]string{"stays": "1", "changes": "2", "new": "1"})
	})
	if keys := changes.Drain(); !slices.Equal(keys, []string{"changes", "deleted", "new"}) {
		t.Errorf("changed: %v", keys)
	}
}

// What is deleted while the view is away is gone when it is whole again, and
// not before; what the store has lost is known for lost.
func TestDeletedAndLostAreTwoThings(t *testing.T) {
	s := newServer(t)
	store := s.store()
	revs := commit(t, store, put("stays", "1", 0), put("deleted", "1", 0), put("lost", "1", 0))
	v := newTextView(t, store)
	changes := v.Subscribe()
	defer changes.Close()
	changes.Drain()
	v.store.conn.nc.Opts.CustomReconnectDelayCB = func(int) time.Duration { return 200 * time.Millisecond }

	s.stop()
	eventually(t, "the view is not whole", func() bool { return !v.Whole() })
	port := s.port
	s.port = server.RANDOM_PORT // out of the view's sight
	s.start()
	other := s.store()
	commit(t, other, del("deleted", revs[1]))
	stream, err := other.conn.js.Stream(t.Context(), "KV_"+string(Desired))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(subjectOf(Desired, "lost"))); err != nil {
		t.Fatal(err)
	}
	if v.Whole() || v.Len() != 3 {
		t.Errorf("while it is away the view holds %d keys", v.Len())
	}
	s.stop()
	s.port = port
	s.start()
	eventually(t, "the view is whole again", v.Whole)
	if got := contents(v); !maps.Equal(got, map[string]string{"stays": "1"}) {
		t.Errorf("view: %v", got)
	}
	if keys := changes.Drain(); !slices.Equal(keys, []string{"deleted", "lost"}) {
		t.Errorf("changed: %v", keys)
	}
	if v.Lost("deleted") || !v.Lost("lost") || v.Lost("stays") || v.Losses() != 1 {
		t.Errorf("lost: deleted %v, lost %v, stays %v; %d losses", v.Lost("deleted"), v.Lost("lost"), v.Lost("stays"), v.Losses())
	}
	commit(t, store, put("lost", "2", 0))
	eventually(t, "the lost key is back", func() bool { return !v.Lost("lost") && v.Len() == 2 })
}

// The JetStream directory is wiped under a running daemon.
func TestWipedStoreIsALoss(t *testing.T) {
	s := newServer(t)
	store := s.store()
	var writes []Write
	for i := range 50 {
		writes = append(writes, put(fmt.Sprintf("k.%02d", i), "1", 0))
	}
	commit(t, store, writes...)
	v := newTextView(t, store)
	s.stop()
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	s.start()
	eventually(t, "the view is whole again, over a bucket made anew", func() bool { return v.Whole() && v.Len() == 0 })
	if !v.Lost("k.07") || v.Losses() != 1 {
		t.Errorf("lost %v, %d losses", v.Lost("k.07"), v.Losses())
	}
	// Revisions count from the beginning again; the view takes them.
	commit(t, store, writes[:10]...)
	eventually(t, "writes are seen", func() bool { return v.Len() == 10 && !v.Lost("k.07") && v.Lost("k.11") })
}

// Somebody removes the bucket while the connection stands.
func TestRemovedBucketIsMadeAnew(t *testing.T) {
	s := newServer(t)
	store := s.store()
	commit(t, store, put("a", "1", 0))
	v := newTextView(t, store)
	if err := store.conn.js.DeleteStream(t.Context(), "KV_"+string(Desired)); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Commit(t.Context(), []Write{put("b", "1", 0)}); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("write to a bucket that is gone: %v", err)
	}
	eventually(t, "the view is whole over a new bucket", func() bool { return v.Whole() && v.Len() == 0 })
	if !v.Lost("a") {
		t.Error("the key counts as deleted")
	}
	commit(t, store, put("a", "2", 0))
	eventually(t, "it is followed", func() bool { e, _ := v.Get("a"); return e.Value == "2" })
}

// Many writers, readers and losses at once: in the end every view shows what is stored.
func TestViewsAgreeInTheEnd(t *testing.T) {
	s := newServer(t)
	store := s.store()
	views := []*View[string]{newTextView(t, store), newTextView(t, s.store())}
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			revisions := map[string]uint64{}
			for i := range 100 {
				key := fmt.Sprintf("w%d.%d", w, i%7)
				write := put(key, fmt.Sprint(i), revisions[key])
				if i%5 == 4 {
					write = del(key, revisions[key])
				}
				got, err := store.Commit(context.Background(), []Write{write})
				if err != nil {
					t.Error(err)
					return
				}
				if revisions[key] = got[0]; write.Delete {
					revisions[key] = 0
				}
				if got[0] == 0 {
					continue
				}
				if err := views[0].Apply(write, got[0]); err != nil {
					t.Error(err)
				}
				if e, ok := views[0].Get(key); ok == write.Delete || ok && e.Revision != got[0] {
					t.Errorf("%s after its own write %d: %+v, %v", key, got[0], e, ok)
				}
			}
		})
	}
	all.Wait()
	values, err := ReadAll(t.Context(), store.conn, Desired, ">", text)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range views {
		eventually(t, fmt.Sprintf("view %d shows what is stored", i), func() bool {
			var shown []string
			for e := range v.All() {
				shown = append(shown, e.Value)
			}
			return slices.Equal(shown, values)
		})
	}
}

func BenchmarkView(b *testing.B) {
	b.Run("apply", func(b *testing.B) {
		store := openStore(b, newServer(b).inProcess(""))
		v := NewView(store, Assignments, DecodeAssignment)
		a := schema.Assignment{Node: "n1", Pod: somePod("web")}
		w := Write{Bucket: Assignments, Key: AssignmentKey("n1", schema.PodKey{Namespace: "default", Name: "web"}), Value: encode(b, a)}
		rev := uint64(0)
		for b.Loop() {
			rev++
			if err := v.Apply(w, rev); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("wake", func(b *testing.B) { // commit to woken subscriber of another view
		s := newServer(b)
		store := openStore(b, s.inProcess(""))
		v := NewView(openStore(b, s.inProcess("")), Desired, text)
		run(b, v.Run)
		eventually(b, "whole", v.Whole)
		changes := v.Subscribe()
		defer changes.Close()
		<-changes.C
		w := put("a", "value", 0)
		for b.Loop() {
			w.Revision = commit(b, store, w)[0]
			<-changes.C
		}
	})
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("open/%d", n), func(b *testing.B) {
			store := openStore(b, newServer(b).inProcess(""))
			var writes []Write
			for i := range n {
				writes = append(writes, Write{Bucket: Desired, Key: fmt.Sprint("k.", i), Value: make([]byte, 1024)})
			}
			commit(b, store, writes...)
			for b.Loop() {
				v := NewView(store, Desired, text)
				changes := v.Subscribe()
				stop := run(b, v.Run)
				for !v.Whole() {
					<-changes.C
				}
				stop()
				if v.Len() != n {
					b.Fatal(v.Len())
				}
			}
		})
	}
}
