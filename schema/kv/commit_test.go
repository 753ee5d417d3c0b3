package kv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

func TestWritesAreCompareAndSet(t *testing.T) {
	store := newServer(t).store()
	first := commit(t, store, put("a", "1", 0))[0]
	if _, err := store.Commit(t.Context(), []Write{put("a", "2", 0)}); !errors.Is(err, schema.ErrConflict) {
		t.Errorf("make a key that exists: %v", err)
	}
	second := commit(t, store, put("a", "2", first))[0]
	if second <= first {
		t.Errorf("revisions %d, then %d", first, second)
	}
	for name, w := range map[string]Write{
		"an old revision":          put("a", "3", first),
		"a revision to come":       put("a", "3", second+10),
		"delete an old revision":   del("a", first),
		"a revision of a new key":  put("b", "1", 5),
		"delete what is not there": del("b", 5),
	} {
		revisions, err := store.Commit(t.Context(), []Write{w})
		if !errors.Is(err, schema.ErrConflict) || revisions[0] != 0 {
			t.Errorf("%s: %v, %v", name, revisions, err)
		}
	}
	if revisions := commit(t, store, del("b", 0)); revisions[0] != 0 {
		t.Errorf("deleting nothing writes %v", revisions)
	}
	if revisions := commit(t, store); len(revisions) != 0 {
		t.Errorf("writing nothing: %v", revisions)
	}
}

func TestKeyIsMadeAnewAfterItsDeletion(t *testing.T) {
	s := newServer(t)
	store, other := s.store(), s.store()
	rev := commit(t, store, put("a", "1", 0))[0]
	commit(t, store, del("a", rev))
	rev = commit(t, store, put("a", "2", 0))[0] // over its own marker
	commit(t, other, del("a", rev))
	rev = commit(t, store, put("a", "3", 0))[0] // over another's marker
	if _, err := other.Commit(t.Context(), []Write{put("a", "4", 0)}); !errors.Is(err, schema.ErrConflict) {
		t.Errorf("the key exists, and the other remembers its marker: %v", err)
	}
	commit(t, other, put("a", "4", rev))

	var puts, dels []Write
	for i := range 50 {
		puts = append(puts, put(fmt.Sprintf("many.%d", i), "1", 0))
	}
	for i, rev := range commit(t, store, puts...) {
		dels = append(dels, del(puts[i].Key, rev))
	}
	commit(t, other, dels...)
	commit(t, store, puts...) // a batch over another's markers
}

func TestBatchIsAllOrNothing(t *testing.T) {
	s := newServer(t)
	store := s.store()
	stale := commit(t, store, put("k.7", "old", 0))[0]
	rev := commit(t, store, put("k.7", "newer", stale))[0]
	var writes []Write
	for i := range 100 {
		writes = append(writes, put(fmt.Sprintf("k.%d", i), "new", 0))
	}
	writes[7].Revision = stale
	revisions, err := store.Commit(t.Context(), writes)
	if !errors.Is(err, schema.ErrConflict) {
		t.Fatalf("a stale revision among 100: %v", err)
	}
	for i, rev := range revisions {
		if rev != 0 {
			t.Fatalf("write %d has revision %d", i, rev)
		}
	}
	keys, err := ReadKeys(t.Context(), store.conn, Desired)
	if err != nil || len(keys) != 1 {
		t.Fatalf("the refused batch wrote: %v, %v", keys, err)
	}

	writes[7].Revision = rev
	view := newTextView(t, store)
	revisions = commit(t, store, writes...)
	eventually(t, "the view has the batch", func() bool { return view.Len() == 100 })
	for i, w := range writes {
		if e, ok := view.Get(w.Key); !ok || e.Revision != revisions[i] || e.Value != "new" {
			t.Errorf("%s: %+v, %v; committed as %d", w.Key, e, ok, revisions[i])
		}
	}
}

func TestLargeCommitGoesInSeveralBatches(t *testing.T) {
	store := newServer(t).store()
	var writes []Write
	for i := range 2500 {
		writes = append(writes, put(fmt.Sprintf("k.%d", i), "v", 0))
	}
	for i, rev := range commit(t, store, writes...) {
		writes[i] = del(writes[i].Key, rev)
	}
	commit(t, store, writes...)
	if keys, err := ReadKeys(t.Context(), store.conn, Desired); err != nil || len(keys) != 0 {
		t.Errorf("%d keys are left (%v)", len(keys), err)
	}
}

func TestFewWritesFailOneByOne(t *testing.T) {
	store := newServer(t).store()
	commit(t, store, put("b", "1", 0))
	writes := []Write{put("a", "1", 0), put("b", "2", 0), put("c", "1", 0)}
	revisions, err := store.Commit(t.Context(), writes)
	if !errors.Is(err, schema.ErrConflict) || !strings.Contains(err.Error(), "write b") || strings.Contains(err.Error(), "write a") {
		t.Errorf("the error names what failed: %v", err)
	}
	if revisions[0] == 0 || revisions[1] != 0 || revisions[2] == 0 {
		t.Errorf("revisions %v", revisions)
	}

	var many []Write
	for i := range 40 {
		many = append(many, put(fmt.Sprintf("m.%d", i), "1", 0))
	}
	commit(t, store, many[3])
	revisions, err = store.CommitEach(t.Context(), many)
	if !errors.Is(err, schema.ErrConflict) {
		t.Error(err)
	}
	for i, rev := range revisions {
		if (rev == 0) != (i == 3) {
			t.Errorf("write %d has revision %d", i, rev)
		}
	}
}

func TestBucketsAreWrittenInOrder(t *testing.T) {
	store := newServer(t).store()
	commit(t, store, put("a", "1", 0))
	writes := []Write{put("a", "2", 0), {Bucket: Assignments, Key: "n1.default.x", Value: []byte("{}")}}
	if _, err := store.Commit(t.Context(), writes); !errors.Is(err, schema.ErrConflict) {
		t.Fatal(err)
	}
	if keys, err := ReadKeys(t.Context(), store.conn, Assignments); err != nil || len(keys) != 0 {
		t.Errorf("a bucket after the one in conflict was written: %v, %v", keys, err)
	}
}

// A deletion leaves a marker that watches see, that goes by itself, and that
// leaves nothing behind.
func TestMarkersGoByThemselves(t *testing.T) {
	s := newServer(t)
	store := s.store()
	store.ttl = 5 * time.Second // long enough to be looked at
	view := newTextView(t, store)
	rev := commit(t, store, put("a", "1", 0))[0]
	eventually(t, "the view has the key", func() bool { return view.Len() == 1 })
	commit(t, store, del("a", rev))
	eventually(t, "the view sees the deletion", func() bool { return view.Len() == 0 })
	if revision, deleted, err := store.last(t.Context(), Desired, "a"); err != nil || !deleted || revision == 0 {
		t.Errorf("marker: %d, %v, %v", revision, deleted, err)
	}
	stream, err := store.conn.js.Stream(t.Context(), "KV_pawl-desired")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is left of the key", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs == 0
	})
	commit(t, store, put("a", "2", 0)) // though the store still remembers the marker
}

// One message with this header would wipe a bucket.
func TestRollupIsRefused(t *testing.T) {
	store := newServer(t).store()
	commit(t, store, put("a", "1", 0), put("b", "1", 0))
	for _, rollup := range []string{"all", "sub"} {
		m := &nats.Msg{Subject: subjectOf(Desired, "a"), Header: nats.Header{"Nats-Rollup": {rollup}}}
		if _, err := store.conn.js.PublishMsg(t.Context(), m); err == nil {
			t.Errorf("roll-up %q is taken", rollup)
		}
	}
	if keys, err := ReadKeys(t.Context(), store.conn, Desired); err != nil || len(keys) != 2 {
		t.Errorf("keys: %v, %v", keys, err)
	}
}

func TestOpenStoreTwiceChangesNothing(t *testing.T) {
	s := newServer(t)
	store := s.store()
	commit(t, store, put("a", "1", 0))
	again := s.store()
	if keys, err := ReadKeys(t.Context(), again.conn, Desired); err != nil || len(keys) != 1 {
		t.Errorf("keys: %v, %v", keys, err)
	}
	for _, want := range []jetstream.StreamConfig{bucketConfig(Desired, 1), bucketConfig(Leases, 1), eventConfig(1)} {
		stream, err := again.conn.js.Stream(t.Context(), want.Name)
		if err != nil {
			t.Fatal(err)
		}
		if have := stream.CachedInfo().Config; !sameSettings(have, want) {
			t.Errorf("%s would be written at each start:\nhave %+v\nwant %+v", want.Name, have, want)
		}
	}
	// Settings that somebody changed are set right.
	wrong := bucketConfig(Actuals, 1)
	wrong.AllowAtomicPublish = false
	if _, err := store.conn.js.UpdateStream(t.Context(), wrong); err != nil {
		t.Fatal(err)
	}
	s.store()
	stream, err := store.conn.js.Stream(t.Context(), wrong.Name)
	if err != nil || !stream.CachedInfo().Config.AllowAtomicPublish {
		t.Errorf("settings were not set right (%v)", err)
	}
}

func TestLostServerIsUnavailableAtOnce(t *testing.T) {
	s := newServer(t)
	store := s.store()
	s.stop()
	for name, f := range map[string]func() error{
		"a few":  func() error { _, err := store.Commit(t.Context(), []Write{put("a", "1", 0)}); return err },
		"events": func() error { return store.Publish(t.Context(), []corev1.Event{{}}) },
		"lease": func() error {
			_, err := store.PutLease(t.Context(), "node.n1", nil, time.Minute, 0)
			return err
		},
		"batch": func() error {
			var writes []Write
			for i := range 30 {
				writes = append(writes, put(fmt.Sprint("k.", i), "1", 0))
			}
			_, err := store.Commit(t.Context(), writes)
			return err
		},
	} {
		began := time.Now()
		if err := f(); !errors.Is(err, schema.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s: took %s", name, d)
		}
	}
	s.start()
	eventually(t, "writes go on", func() bool {
		_, err := store.Commit(t.Context(), []Write{put("a", "1", 0)})
		return err == nil || errors.Is(err, schema.ErrConflict)
	})
}

func TestNoServerIsSaid(t *testing.T) {
	began := time.Now()
	_, err := Connect(t.Context(), ConnOptions{URL: "nats://127.0.0.1:1", Name: "nobody", Logger: quiet()})
	if !errors.Is(err, schema.ErrUnavailable) || time.Since(began) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Connect(ctx, ConnOptions{URL: "nats://127.0.0.1:1", Name: "nobody", Logger: quiet()}); err == nil {
		t.Error("connected")
	}
}

func TestLeases(t *testing.T) {
	s := newServer(t)
	store := s.store()
	view := NewView(store, Leases, text)
	run(t, view.Run)
	eventually(t, "the view is whole", view.Whole)
	if _, err := store.GetLease(t.Context(), "leader.x"); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("no lease: %v", err)
	}
	for _, ttl := range []time.Duration{0, time.Millisecond, 1500 * time.Millisecond} {
		if _, err := store.PutLease(t.Context(), "leader.x", nil, ttl, 0); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("ttl %s: %v", ttl, err)
		}
	}
	const short = 5 * time.Second // and long enough to be looked at
	rev, err := store.PutLease(t.Context(), "leader.x", []byte("a"), short, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.PutLease(t.Context(), "leader.x", []byte("b"), short, 0); !errors.Is(err, schema.ErrConflict) {
		t.Errorf("a lease that somebody has: %v", err)
	}
	renewed, err := store.PutLease(t.Context(), "leader.x", []byte("a"), short, rev)
	if err != nil || renewed <= rev {
		t.Errorf("renewed as %d after %d: %v", renewed, rev, err)
	}
	if l, err := store.GetLease(t.Context(), "leader.x"); err != nil || string(l.Value) != "a" || l.Revision != renewed || time.Since(l.Renewed) > time.Minute {
		t.Errorf("lease %+v, %v", l, err)
	}
	eventually(t, "the view has the lease", func() bool { return view.Len() == 1 })
	eventually(t, "the lease expires, though it was renewed", func() bool { return view.Len() == 0 })
	if _, err := store.GetLease(t.Context(), "leader.x"); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("an expired lease: %v", err)
	}
	rev, err = store.PutLease(t.Context(), "leader.x", []byte("b"), time.Minute, 0) // over the marker
	if err != nil {
		t.Fatal(err)
	}
	if err := store.DropLease(t.Context(), "leader.x", rev); err != nil {
		t.Fatal(err)
	}

	nodes, others := store.NewNodeLeases(), store.NewNodeLeases()
	for range 3 {
		for _, l := range []*NodeLeases{nodes, others} {
			if err := l.Renew(t.Context(), "n1", []byte("{}"), time.Minute); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestEventsArePublished(t *testing.T) {
	store := newServer(t).store()
	events := make([]corev1.Event, 300)
	for i := range events {
		events[i].InvolvedObject = corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: fmt.Sprintf("web.%d", i)}
		events[i].Name = fmt.Sprintf("web.%d.1f", i)
	}
	events[0].InvolvedObject = corev1.ObjectReference{Kind: "Nonsense", Name: "a b*>"}
	events[1].InvolvedObject = corev1.ObjectReference{}
	if err := store.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	// It happened once more: the new count takes the place of the old one.
	events[7].Count = 2
	if err := store.Publish(t.Context(), events[7:8]); err != nil {
		t.Fatal(err)
	}
	stream, err := store.conn.js.Stream(t.Context(), EventStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 300 {
		t.Errorf("%d events are stored", n)
	}
	if _, err := stream.GetLastMsgForSubject(t.Context(), "pawl.events.default.pods.web_7.1f"); err != nil {
		t.Error(err)
	}
}

func TestReadsOnceForPeople(t *testing.T) {
	s := newServer(t)
	if _, err := ReadRevisions(t.Context(), s.connect()); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("no store yet: %v", err)
	}
	store := s.store()
	writes := []Write{
		{Bucket: Actuals, Key: ObjectKey(schema.ObjectKey{Kind: Revisions, Name: "abc"}), Value: encode(t, schema.RevisionRecord{Commit: "abc"})},
		{Bucket: Actuals, Key: ObjectKey(schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: "b"}), Value: encode(t, schema.PodReport{Node: "n1", Pod: somePod("b")})},
		{Bucket: Actuals, Key: ObjectKey(schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: "a"}), Value: encode(t, schema.PodReport{Node: "n1", Pod: somePod("a")})},
	}
	revisions := commit(t, store, writes...)
	if r, err := ReadRevisions(t.Context(), store.conn); err != nil || len(r) != 1 || r[0].Commit != "abc" {
		t.Errorf("revisions: %v, %v", r, err)
	}
	all, err := ReadAll(t.Context(), store.conn, Actuals, "pods.>", DecodeActual)
	if err != nil || len(all) != 2 || all[0].Report.Pod.Name != "a" {
		t.Errorf("pods: %v, %v", all, err)
	}
	commit(t, store, Write{Bucket: Actuals, Key: writes[1].Key, Delete: true, Revision: revisions[1]})
	if keys, err := ReadKeys(t.Context(), store.conn, Actuals); err != nil || len(keys) != 2 {
		t.Errorf("keys: %v, %v", keys, err)
	}
}

func BenchmarkCommit(b *testing.B) {
	value := make([]byte, 2048)
	for i := range value {
		value[i] = 'x'
	}
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			store := openStore(b, newServer(b).inProcess(""))
			writes := make([]Write, n)
			for i := range writes {
				writes[i] = Write{Bucket: Desired, Key: fmt.Sprint("k.", i), Value: value}
			}
			for b.Loop() {
				for i, rev := range commit(b, store, writes...) {
					writes[i].Revision = rev
				}
			}
		})
	}
}
