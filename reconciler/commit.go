package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pawl-project/pawl/reconciler/plan"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// commit writes a plan's changes by compare-and-set, each against the revision
// that the plan was made from, and makes them visible in the views at once. On
// a conflict what was not written is forgotten; the next plan starts afresh.
func (l *loop) commit(ctx context.Context, changes []plan.Change) error {
	writes := make([]kv.Write, 0, len(changes))
	for _, c := range changes {
		w, err := l.write(c)
		if err != nil {
			return err
		}
		writes = append(writes, w)
	}
	return l.put(ctx, writes)
}

// put writes and applies: the views see what was written before it returns.
func (l *loop) put(ctx context.Context, writes []kv.Write) error {
	if len(writes) == 0 {
		return nil
	}
	commit := l.store.Commit
	if l.conflicted {
		commit = l.store.CommitEach // one key that cannot be written stops only itself
	}
	revisions, err := commit(ctx, writes)
	l.conflicted = errors.Is(err, schema.ErrConflict)
	for i, rev := range revisions {
		if rev == 0 {
			continue // not written
		}
		if applyErr := l.apply(writes[i], rev); applyErr != nil {
			return applyErr
		}
	}
	return err
}

func (l *loop) apply(w kv.Write, revision uint64) error {
	switch w.Bucket {
	case kv.Desired:
		return l.views.desired.Apply(w, revision)
	case kv.Assignments:
		return l.views.assignments.Apply(w, revision)
	case kv.Actuals:
		return l.views.actual.Apply(w, revision)
	default:
		return fmt.Errorf("write to bucket %s: the loop keeps no view of it", w.Bucket)
	}
}

// write turns one change into one write, expecting what the views hold.
func (l *loop) write(c plan.Change) (kv.Write, error) {
	switch {
	case c.Assign != nil:
		key := kv.AssignmentKey(c.Assign.Node, schema.PodKey{Namespace: c.Assign.Pod.Namespace, Name: c.Assign.Pod.Name})
		return l.encodeAssignment(key, *c.Assign)
	case c.Unassign != nil:
		return l.remove(kv.Assignments, kv.AssignmentKey(c.Unassign.Node, c.Unassign.Pod)), nil
	case c.Put != nil:
		return l.encode(kv.Actuals, kv.ObjectKey(schema.KeyOf(c.Put)), c.Put)
	case c.Delete != nil:
		return l.remove(kv.Actuals, kv.ObjectKey(*c.Delete)), nil
	default:
		return kv.Write{}, fmt.Errorf("plan: change about %s (%s) changes nothing", c.About, c.Event)
	}
}

func (l *loop) encodeAssignment(key string, a schema.Assignment) (_ kv.Write, err error) {
	if a.Signature, err = l.sealer.Sign(&a); err != nil {
		return kv.Write{}, fmt.Errorf("sign %s %s: %w", kv.Assignments, key, err)
	}
	return l.encode(kv.Assignments, key, a)
}

func (l *loop) encode(b kv.Bucket, key string, value any) (kv.Write, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return kv.Write{}, fmt.Errorf("encode %s %s: %w", b, key, err)
	}
	return kv.Write{Bucket: b, Key: key, Value: text, Revision: l.revision(b, key)}, nil
}

func (l *loop) remove(b kv.Bucket, key string) kv.Write {
	return kv.Write{Bucket: b, Key: key, Delete: true, Revision: l.revision(b, key)}
}

// revision is the one the views hold of a key; 0 when they hold none.
func (l *loop) revision(b kv.Bucket, key string) uint64 {
	switch b {
	case kv.Desired:
		e, _ := l.views.desired.Get(key)
		return e.Revision
	case kv.Assignments:
		e, _ := l.views.assignments.Get(key)
		return e.Revision
	default:
		e, _ := l.views.actual.Get(key)
		return e.Revision
	}
}
