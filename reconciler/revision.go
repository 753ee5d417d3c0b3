package reconciler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/reconciler/plan"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// keptRecords bounds how many RevisionRecords the store holds.
	keptRecords = 100
	// namedChanges bounds how many objects a record names of each sort.
	namedChanges = 50
	// keptFaults bounds how many faults a record holds.
	keptFaults = 50
)

// takeUp makes an accepted revision the desired state and records the verdict.
// A refused commit changes nothing but the record.
func (l *loop) takeUp(ctx context.Context, v *verdict, now time.Time) error {
	l.holdLocked(v)
	record := newRecord(v)
	if v.revision != nil {
		d, err := l.desire(ctx, *v.revision, now)
		v.created, v.changed, v.removed = union(v.created, d.Created), union(v.changed, d.Changed), union(v.removed, d.Removed)
		if err != nil {
			return err
		}
		record.Created, record.Changed, record.Removed = v.created, v.changed, v.removed
		l.log.Info("revision applied", "commit", short(v.commit.ID), "author", v.commit.Author,
			"created", len(d.Created), "changed", len(d.Changed), "removed", len(d.Removed), "warnings", len(v.revision.Warnings))
	}
	return l.record(ctx, record, now)
}

// recordRefused records the pushes that were turned away. Those that the store
// does not take are kept for the next step.
func (l *loop) recordRefused(ctx context.Context, now time.Time) error {
	refused := l.intake.turnedAway()
	for i, v := range refused {
		if err := l.record(ctx, newRecord(v), now); err != nil {
			l.intake.notRecorded(refused[i:])
			return fmt.Errorf("record the refused push of %s: %w", short(v.commit.ID), err)
		}
	}
	return nil
}

// desire makes pawl-desired what the revision says, secrets sealed.
func (l *loop) desire(ctx context.Context, rev schema.Revision, now time.Time) (plan.Desired, error) {
	d := l.differ.Desire(rev, l.views.stored(), l.sealer.Same, now)
	writes := make([]kv.Write, 0, len(d.Put)+len(d.Delete))
	for _, o := range d.Put {
		sealed, err := l.seal(o)
		if err != nil {
			return d, err
		}
		w, err := l.encode(kv.Desired, kv.ObjectKey(schema.KeyOf(o)), sealed)
		if err != nil {
			return d, err
		}
		writes = append(writes, w)
	}
	for _, k := range d.Delete {
		writes = append(writes, l.remove(kv.Desired, kv.ObjectKey(k)))
	}
	if err := l.put(ctx, writes); err != nil {
		return d, err
	}
	l.current, l.checked = &rev, true
	l.intake.stand(rev.Objects)
	return d, nil
}

func (l *loop) seal(o schema.Object) (schema.Object, error) {
	secret, ok := o.(*corev1.Secret)
	if !ok {
		return o, nil
	}
	return l.sealer.Seal(secret)
}

func newRecord(v *verdict) *schema.RevisionRecord {
	r := &schema.RevisionRecord{
		Commit: v.commit.ID, Author: v.commit.Author, Email: v.commit.Email,
		Subject: v.commit.Subject, When: v.commit.When, Seen: v.seen,
	}
	if v.revision == nil {
		r.Result = schema.RevisionRefused
		r.Faults = v.refusal.Faults[:min(len(v.refusal.Faults), keptFaults)]
		return r
	}
	r.Result = schema.RevisionApplied
	r.Warnings = v.revision.Warnings[:min(len(v.revision.Warnings), keptFaults)]
	return r
}

// union adds the names of keys to those that are named, up to namedChanges.
func union(named []string, keys []schema.ObjectKey) []string {
	for _, k := range keys {
		if len(named) == namedChanges {
			break
		}
		if name := k.String(); !slices.Contains(named, name) {
			named = append(named, name)
		}
	}
	return named
}

// record remembers what became of a commit. The commit that already was the
// newest one with its result (the daemon was restarted, say) keeps the record it has.
func (l *loop) record(ctx context.Context, r *schema.RevisionRecord, now time.Time) error {
	known := l.records()
	if old := newestWith(known, r.Result); old != nil && old.Commit == r.Commit {
		if r.Result == schema.RevisionApplied && old.Settled == nil {
			l.applied = old
		}
		return nil
	}
	writes := []kv.Write{}
	running := newestWith(known, schema.RevisionApplied) // however many were refused since
	for i := 0; i <= len(known)-keptRecords; i++ {
		if known[i] != running {
			writes = append(writes, l.remove(kv.Actuals, recordKey(known[i])))
		}
	}
	w, err := l.encode(kv.Actuals, recordKey(r), r)
	if err != nil {
		return err
	}
	if err := l.put(ctx, append(writes, w)); err != nil {
		return err
	}
	if r.Result == schema.RevisionApplied {
		l.applied = r
	}
	l.tellRevision(r, now)
	return nil
}

// newestWith is the newest record with a result; nil when there is none.
func newestWith(known []*schema.RevisionRecord, result schema.RevisionResult) *schema.RevisionRecord {
	for _, r := range slices.Backward(known) {
		if r.Result == result {
			return r
		}
	}
	return nil
}

// settle notes that everything the newest revision asks for is so.
func (l *loop) settle(ctx context.Context, now time.Time) error {
	if l.applied == nil {
		return nil
	}
	r := *l.applied
	r.Settled = &now
	w, err := l.encode(kv.Actuals, recordKey(&r), &r)
	if err != nil {
		return err
	}
	if err := l.put(ctx, []kv.Write{w}); err != nil {
		return err
	}
	l.log.Info("revision settled", "commit", short(r.Commit), "after", now.Sub(r.Seen).Round(time.Millisecond))
	l.tellRevision(&r, now)
	l.applied = nil
	return nil
}

// records returns the store's RevisionRecords, oldest first.
func (l *loop) records() []*schema.RevisionRecord {
	var all []*schema.RevisionRecord
	for e := range l.views.actual.All() {
		if e.Value.Revision != nil {
			all = append(all, e.Value.Revision)
		}
	}
	slices.SortFunc(all, func(a, b *schema.RevisionRecord) int {
		return cmp.Or(a.Seen.Compare(b.Seen), cmp.Compare(a.Commit, b.Commit))
	})
	return all
}

func recordKey(r *schema.RevisionRecord) string {
	return kv.ObjectKey(schema.ObjectKey{Kind: kv.Revisions, Name: r.Commit})
}
