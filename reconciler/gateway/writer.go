package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A writer makes batches of the clerk's durable, one at a time, so that the
// clerk does not wait for a disk.
type writer struct {
	store  *kv.Store
	actual *kv.View[kv.Actual]
	leases *kv.NodeLeases
	work   chan []*entry
	done   chan []result
	busy   bool // belongs to the clerk
}

func newWriter(o Options) *writer {
	return &writer{
		store: o.Store, actual: o.Actual, leases: o.Store.NewNodeLeases(),
		work: make(chan []*entry), done: make(chan []result, 1),
	}
}

func (w *writer) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case batch := <-w.work:
			w.done <- w.write(ctx, batch)
		}
	}
}

func (w *writer) write(ctx context.Context, batch []*entry) []result {
	results := make([]result, len(batch))
	var writes []kv.Write
	var of []int // index in batch of each write
	for i, e := range batch {
		results[i].entry = e
		if e.lease {
			results[i].err = w.renew(ctx, e.node)
		}
		if e.value == nil {
			continue
		}
		known, _ := w.actual.Get(e.key)
		writes = append(writes, kv.Write{Bucket: kv.Actuals, Key: e.key, Value: e.value, Revision: known.Revision})
		of = append(of, i)
	}
	if len(writes) == 0 {
		return results
	}
	revisions, err := w.store.Commit(ctx, writes)
	if errors.Is(err, schema.ErrConflict) && len(writes) > 1 {
		// One that was overtaken must not hold up the others.
		rest, err2 := w.store.CommitEach(ctx, unwritten(writes, revisions))
		revisions, err = merge(revisions, rest), err2
	}
	for i, rev := range revisions {
		switch r := &results[of[i]]; {
		case rev == 0 && err != nil:
			r.err = err
		case rev != 0:
			if applyErr := w.actual.Apply(writes[i], rev); applyErr != nil {
				r.err = errors.Join(applyErr, schema.ErrRefused)
			}
		}
	}
	return results
}

// unwritten is the writes that have no revision yet.
func unwritten(writes []kv.Write, revisions []uint64) []kv.Write {
	var rest []kv.Write
	for i, rev := range revisions {
		if rev == 0 {
			rest = append(rest, writes[i])
		}
	}
	return rest
}

// merge puts the revisions of the rest in their places.
func merge(revisions, rest []uint64) []uint64 {
	for i, rev := range revisions {
		if rev == 0 {
			revisions[i], rest = rest[0], rest[1:]
		}
	}
	return revisions
}

// lease is what a node's lease says.
type lease struct {
	Node    schema.NodeName `json:"node"`
	Renewed time.Time       `json:"renewed"`
}

func (w *writer) renew(ctx context.Context, n schema.NodeName) error {
	text, err := json.Marshal(lease{Node: n, Renewed: time.Now()})
	if err != nil {
		return err
	}
	return w.leases.Renew(ctx, n, text, LeaseTTL)
}
