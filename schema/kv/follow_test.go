package kv

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"
)

// A follower is told of an own write once more, when it has its time; the
// planner's subscription is not.
func TestFollowTellsWhatTheWatchDelivered(t *testing.T) {
	store := newServer(t).store()
	v := newTextView(t, store)
	plain, follow := v.Subscribe(), v.Follow()
	defer plain.Close()
	defer follow.Close()
	<-plain.C
	began := time.Now().Add(-time.Minute)
	var last time.Time
	w := put("a", "0", 0)
	for i := range 50 {
		w.Value = fmt.Append(nil, i)
		w.Revision = commit(t, store, w)[0]
		if err := v.Apply(w, w.Revision); err != nil {
			t.Fatal(err)
		}
		for {
			<-follow.C
			follow.Drain()
			if e, ok := v.Get("a"); ok && e.Revision == w.Revision && !e.Stored.IsZero() {
				if e.Stored.Before(began) || e.Stored.Before(last) || !e.Stored.Equal(v.Newest()) {
					t.Fatalf("stored at %v, the one before at %v, newest %v", e.Stored, last, v.Newest())
				}
				last = e.Stored
				break
			}
		}
		<-plain.C
		if keys := plain.Drain(); !slices.Equal(keys, []string{"a"}) {
			t.Fatalf("changed: %v", keys)
		}
		select {
		case <-plain.C:
			t.Fatalf("write %d wakes a subscriber twice", i)
		default:
		}
	}
	d := del("a", w.Revision)
	if err := v.Apply(d, commit(t, store, d)[0]); err != nil {
		t.Fatal(err)
	}
	<-follow.C
	if keys := follow.Drain(); !slices.Equal(keys, []string{"a"}) {
		t.Errorf("a follower hears of the deletion: %v", keys)
	}
	if !v.Newest().After(last) {
		t.Errorf("newest %v is not the deletion's time", v.Newest())
	}
}

// The times are the server's, and the same for every view there will be.
func TestStoredSurvivesALossOfTheWatch(t *testing.T) {
	s := newServer(t)
	store := s.store()
	v := newTextView(t, store)
	w := put("a", "1", 0)
	rev := commit(t, store, w)[0]
	if err := v.Apply(w, rev); err != nil {
		t.Fatal(err)
	}
	stored := func() time.Time { e, _ := v.Get("a"); return e.Stored }
	eventually(t, "the write is delivered", func() bool { return !stored().IsZero() })
	before := stored()
	follow := v.Follow()
	defer follow.Close()
	<-follow.C
	follow.Drain()
	s.stop()
	s.start()
	eventually(t, "the view is whole again", func() bool { <-follow.C; return v.Whole() })
	if keys := follow.Drain(); len(keys) != 0 {
		t.Errorf("a loss of the watch tells of unchanged keys: %v", keys)
	}
	if !stored().Equal(before) {
		t.Errorf("stored at %v, before the loss at %v", stored(), before)
	}
}

// said is what a watch would say of one key.
type said struct {
	jetstream.KeyValueEntry
	key      string
	revision uint64
	deleted  bool
}

func (s said) Key() string        { return s.key }
func (s said) Revision() uint64   { return s.revision }
func (s said) Value() []byte      { return fmt.Append(nil, s.revision) }
func (s said) Created() time.Time { return time.Unix(0, int64(s.revision)) }
func (s said) Operation() jetstream.KeyValueOp {
	if s.deleted {
		return jetstream.KeyValuePurge
	}
	return jetstream.KeyValuePut
}

// However own writes and the watch interleave, and wherever the watch is lost:
// once all is delivered the view is the bucket, each entry has its time, and a
// follower that looked only at keys it was told of, skipping those without a
// time, has seen the same.
func TestFollowersMissNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := &View[string]{
			bucket: Actuals, log: quiet(), now: newPicture[string](), lost: map[string]struct{}{}, changes: map[*Changes]struct{}{},
			decode: func(_ string, raw []byte) (string, error) { return string(raw), nil },
		}
		v.begin()
		v.complete()
		follow := v.Follow()
		seen := map[string]string{}
		look := func() {
			for _, k := range follow.Drain() {
				e, ok := v.Get(k)
				switch {
				case !ok:
					delete(seen, k)
				case !e.Stored.IsZero():
					seen[k] = e.Value
				}
			}
		}
		var log []said // what the server has
		bucket := map[string]said{}
		delivered := 0
		deliver := func() {
			if delivered < len(log) {
				v.take(log[delivered])
				delivered++
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1: // a write, shown at once by Apply or not
				s := said{key: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key"), revision: uint64(len(log) + 1)}
				if _, exists := bucket[s.key]; exists {
					s.deleted = rapid.Bool().Draw(t, "deleted")
				}
				log = append(log, s)
				bucket[s.key] = s
				if s.deleted {
					delete(bucket, s.key)
				}
				if rapid.Bool().Draw(t, "ahead") {
					deliver()
				}
				if rapid.Bool().Draw(t, "own") {
					if err := v.Apply(Write{Bucket: Actuals, Key: s.key, Value: s.Value(), Delete: s.deleted}, s.revision); err != nil {
						t.Fatal(err)
					}
				}
			case 2:
				deliver()
			case 3: // the watch is lost: it begins again with the newest of each key
				v.lose()
				v.begin()
				newest := map[string]said{}
				for _, s := range log {
					newest[s.key] = s
				}
				for _, s := range slices.SortedFunc(maps.Values(newest), func(a, b said) int { return int(a.revision) - int(b.revision) }) {
					v.take(s)
				}
				v.complete()
				delivered = len(log)
			case 4:
				look()
			}
		}
		for delivered < len(log) {
			deliver()
		}
		look()
		want := map[string]string{}
		for k, s := range bucket {
			want[k] = fmt.Sprint(s.revision)
			if e, _ := v.Get(k); e.Stored.UnixNano() != int64(s.revision) {
				t.Fatalf("%s of revision %d is stored at %v", k, s.revision, e.Stored)
			}
		}
		if got := contents(v); !maps.Equal(got, want) || !maps.Equal(seen, want) {
			t.Fatalf("view %v, follower %v, bucket %v", got, seen, want)
		}
	})
}
