package kv

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

func event(name string, count int32) corev1.Event {
	return corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "default", Name: name},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: "web"},
		Reason:         "Started", Count: count, Type: corev1.EventTypeNormal,
	}
}

func publish(t testing.TB, store *Store, events ...corev1.Event) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := store.Publish(context.Background(), events)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// events is what a reader holds, in order: name and count of each.
func events(r *EventReader) string {
	var all []string
	for e := range r.All() {
		all = append(all, fmt.Sprintf("%s×%d", e.Value.Name, e.Value.Count))
	}
	return strings.Join(all, " ")
}

func newReader(t testing.TB, store *Store) *EventReader {
	r := NewEventReader(store)
	run(t, r.Run)
	eventually(t, "the reader is whole", r.Whole)
	return r
}

func eventKey(name string) string {
	return ObjectKey(schema.ObjectKey{Kind: schema.Events, Namespace: "default", Name: name})
}

func TestEventReaderHoldsTheNewestOfEachName(t *testing.T) {
	store := newServer(t).store()
	empty := newReader(t, store) // nothing to read is whole too
	publish(t, store, event("a", 1), event("b", 1), event("a", 2))
	r := newReader(t, store)
	if got := events(r); got != "b×1 a×2" {
		t.Errorf("at the start: %s", got)
	}
	follow := r.Follow()
	defer follow.Close()
	<-follow.C
	if keys := follow.Drain(); !slices.Equal(keys, []string{eventKey("a"), eventKey("b")}) {
		t.Errorf("a follower begins with %v", keys)
	}
	publish(t, store, event("b", 2), event("c", 1))
	for _, x := range []*EventReader{empty, r} {
		eventually(t, "live events arrive", func() bool { return events(x) == "a×2 b×2 c×1" })
	}
	if keys := follow.Drain(); !slices.Equal(keys, []string{eventKey("b"), eventKey("c")}) {
		t.Errorf("a follower hears of %v", keys)
	}
	e, ok := r.Get(eventKey("c"))
	if !ok || e.Value.Kind != "Event" || time.Since(e.Stored).Abs() > time.Minute {
		t.Errorf("entry: %+v", e)
	}
	if other, _ := empty.Get(eventKey("c")); !other.Stored.Equal(e.Stored) {
		t.Errorf("two readers, two times: %v and %v", other.Stored, e.Stored)
	}
}

func TestEventReaderReadsOnAfterARestart(t *testing.T) {
	s := newServer(t)
	store := s.store()
	r := newReader(t, store)
	publish(t, store, event("a", 1), event("b", 1))
	eventually(t, "events arrive", func() bool { return events(r) == "a×1 b×1" })
	follow := r.Follow()
	defer follow.Close()
	follow.Drain()
	for i := range 3 {
		s.stop()
		s.start()
		publish(t, store, event("c", int32(i+1)))
		want := fmt.Sprintf("a×1 b×1 c×%d", i+1)
		eventually(t, "read on", func() bool { return r.Whole() && events(r) == want })
	}
	if keys := follow.Drain(); !slices.Equal(keys, []string{eventKey("c")}) {
		t.Errorf("a follower hears again of %v", keys)
	}
}

func TestEventReaderOfAStreamMadeAnew(t *testing.T) {
	store := newServer(t).store()
	r := newReader(t, store)
	publish(t, store, event("a", 1), event("b", 1))
	eventually(t, "events arrive", func() bool { return events(r) == "a×1 b×1" })
	if err := store.conn.js.DeleteStream(t.Context(), EventStream); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was lost is forgotten", func() bool { return r.Whole() && events(r) == "" })
	publish(t, store, event("c", 1))
	eventually(t, "the new stream is read", func() bool { return events(r) == "c×1" })
}

func TestEventReaderForgets(t *testing.T) {
	r := NewEventReader(&Store{conn: &Conn{log: quiet()}})
	r.age = time.Hour
	begin := time.Unix(1_000_000, 0)
	for i := range 3 {
		e := event(fmt.Sprint("e", i), 1)
		r.put(&e, uint64(i+1), begin.Add(time.Duration(i)*time.Minute), 100)
	}
	follow := r.Follow()
	defer follow.Close()
	follow.Drain()
	if again := r.expireOnce(begin.Add(time.Hour - 30*time.Second)); again != 30*time.Second || events(r) != "e0×1 e1×1 e2×1" {
		t.Errorf("too early: %s, again in %v", events(r), again)
	}
	if again := r.expireOnce(begin.Add(time.Hour)); again != time.Minute || events(r) != "e1×1 e2×1" {
		t.Errorf("after an hour: %s, again in %v", events(r), again)
	}
	if keys := follow.Drain(); !slices.Equal(keys, []string{eventKey("e0")}) {
		t.Errorf("a follower hears of %v", keys)
	}
	for i := range eventsMost + 5 {
		e := event(fmt.Sprint("n", i), 1)
		r.put(&e, uint64(i+10), begin.Add(time.Hour), 100)
	}
	if len(r.entries) != eventsMost || r.order.Len() != eventsMost || r.bytes != eventsMost*100 {
		t.Errorf("holds %d events, %d bytes", len(r.entries), r.bytes)
	}
	if _, ok := r.Get(eventKey("n4")); ok {
		t.Error("the oldest did not go first")
	}
	big := event("big", 1)
	r.put(&big, 1<<20, begin.Add(time.Hour), eventBytesMost-1000)
	if r.bytes > eventBytesMost || len(r.entries) != 11 {
		t.Errorf("holds %d events, %d bytes", len(r.entries), r.bytes)
	}
}
