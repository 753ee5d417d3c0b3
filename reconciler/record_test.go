package reconciler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

func now() time.Time { return time.Now() }

func settings(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Data: map[string]string{"value": value},
	}
}

// The store fails between a revision's objects and its record: what is recorded
// later names all that the revision changed, and a push that was turned away
// meanwhile is recorded as well.
func TestRecordsOutliveAFailingStore(t *testing.T) {
	r := newLoopRig(t)
	r.background(r.views.run)
	r.until("views", r.views.whole)
	c := r.views.subscribe()
	defer c.close()
	r.push("aaaaaaaa", settings("a", "1"), settings("b", "1"))
	_, err := r.step(t.Context(), c, now())
	r.must(err)

	v := &verdict{
		commit:   schema.Commit{ID: "bbbbbbbb", Author: "Ann", Subject: "change it"},
		revision: &schema.Revision{Commit: schema.Commit{ID: "bbbbbbbb"}, Objects: []schema.Object{settings("a", "2"), settings("c", "1")}}, seen: now(),
	}
	// As takeUp does when the record is not taken: the objects are written.
	d, err := r.desire(t.Context(), *v.revision, now())
	r.must(err)
	v.created, v.changed, v.removed = union(nil, d.Created), union(nil, d.Changed), union(nil, d.Removed)
	r.intake.giveBack(v)
	r.intake.refuse(schema.Commit{ID: "cccccccc", Author: "Eve"}, &schema.Refusal{Faults: []schema.Fault{{Problem: "no"}}})
	works := r.store
	r.store = r.openStore()
	r.conn.Close()
	if _, err := r.step(t.Context(), c, now()); err == nil {
		t.Error("nothing failed: the test shows nothing")
	}
	r.store = works
	if n := len(r.records()); n != 1 {
		t.Fatalf("%d records while the store fails", n)
	}

	_, err = r.step(t.Context(), c, now())
	r.must(err)
	records := r.records()
	i := slices.IndexFunc(records, func(x *schema.RevisionRecord) bool { return x.Commit == "bbbbbbbb" })
	j := slices.IndexFunc(records, func(x *schema.RevisionRecord) bool { return x.Commit == "cccccccc" })
	if i < 0 || j < 0 || len(records) != 3 {
		t.Fatalf("%d records", len(records))
	}
	got := fmt.Sprint(records[i].Created, records[i].Changed, records[i].Removed)
	if want := "[configmaps/default/c] [configmaps/default/a] [configmaps/default/b]"; got != want {
		t.Errorf("recorded %s, want %s", got, want)
	}
	if records[j].Result != schema.RevisionRefused {
		t.Errorf("the push that was turned away is recorded as %s", records[j].Result)
	}
}

// News of revisions is about the revision, with who did it and what.
func TestNewsOfRevisions(t *testing.T) {
	r := newLoopRig(t)
	at := now()
	settled := at.Add(1500 * time.Millisecond)
	record := schema.RevisionRecord{Commit: "0123456789abcdef", Author: "Ann", Subject: "more of it", Seen: at, Result: schema.RevisionApplied, Created: []string{"x", "y"}}
	r.tellRevision(&record, at)
	record.Settled = &settled
	r.tellRevision(&record, at)
	r.tellRevision(&schema.RevisionRecord{Commit: "0123456789abcdef", Author: "Ann", Subject: "oops", Seen: at, Result: schema.RevisionRefused,
		Faults: []schema.Fault{{File: "web.yaml", Line: 3, Problem: "no such field"}, {Problem: "two"}, {Problem: "three"}}}, at)
	for _, want := range []string{
		"Normal RevisionApplied Applied commit 0123456789ab by Ann (more of it): 2 created, 0 changed, 0 removed",
		"Normal RevisionSettled Everything that commit 0123456789ab by Ann (more of it) asks for is so, 1.5s after it came",
		"Warning RevisionRefused Refused commit 0123456789ab by Ann (oops): web.yaml:3: no such field (and 2 more)",
	} {
		n := (<-r.events).news[0]
		if got := n.Type + " " + n.Event + " " + n.Message; got != want {
			t.Errorf("told  %s\nwant  %s", got, want)
		}
		if n.About.Kind != schema.Revisions || n.About.Name != record.Commit {
			t.Errorf("told about %s", n.About)
		}
	}
}
