package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// waitingMost and waitingBytes bound what of one node waits to be stored.
	waitingMost  = 2000
	waitingBytes = 32 << 20
	// batchMost is how much is written at once: one batch of the store.
	batchMost = 1000
	// triesMost is how often a write is tried before its node is told to try later.
	triesMost  = 6
	retryFirst = 5 * time.Millisecond
)

// An entry is one value to be stored: the newest word on one key.
type entry struct {
	key   string
	node  schema.NodeName
	value []byte // nil: nothing but the lease
	lease bool   // renew the node's lease
	jobs  []*job // that wait for it
	tries int
	after time.Time // not to be tried before
}

// A job is one request that is answered once all its entries are stored.
type job struct {
	request  kv.Request
	waiting  int
	err      error
	answered bool
}

// An inbox holds what waits to be stored: one entry a key, the newest.
type inbox struct {
	entries map[string]*entry
	writing map[string]bool
	order   []string // the keys of entries, oldest first
	count   map[schema.NodeName]int
	bytes   map[schema.NodeName]int
	retry   *time.Timer
}

func newInbox() *inbox {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &inbox{
		entries: map[string]*entry{}, writing: map[string]bool{},
		count: map[schema.NodeName]int{}, bytes: map[schema.NodeName]int{}, retry: t,
	}
}

// has says whether something waits for the key, or is being written.
func (b *inbox) has(key string) bool { return b.entries[key] != nil || b.writing[key] }

func (b *inbox) of(n schema.NodeName) int { return b.count[n] }

// put makes e the newest word on its key. Who waits for an older word waits for
// this one. The error wraps schema.ErrUnavailable when too much waits.
func (b *inbox) put(e *entry, j *job) error {
	old := b.entries[e.key]
	more := len(e.value)
	if old != nil && old.node == e.node {
		more -= len(old.value)
	}
	if old == nil && b.count[e.node] >= waitingMost || more > 0 && b.bytes[e.node]+more > waitingBytes {
		return fmt.Errorf("node %s has too much waiting to be stored: %w", e.node, schema.ErrUnavailable)
	}
	if old != nil {
		e.jobs, e.tries, e.after = old.jobs, old.tries, old.after
		e.lease = e.lease || old.lease
		if e.value == nil {
			e.value = old.value
		}
		b.forget(old)
	} else {
		b.order = append(b.order, e.key)
	}
	if j != nil {
		e.jobs = append(e.jobs, j)
		j.waiting++
	}
	b.entries[e.key] = e
	b.count[e.node]++
	b.bytes[e.node] += len(e.value)
	return nil
}

func (b *inbox) forget(e *entry) {
	delete(b.entries, e.key)
	b.count[e.node]--
	b.bytes[e.node] -= len(e.value)
	if b.count[e.node] == 0 {
		delete(b.count, e.node)
		delete(b.bytes, e.node)
	}
}

// batch returns what can be written now, without taking it. When everything has
// to wait it sets the timer.
func (b *inbox) batch(now time.Time) []*entry {
	var out []*entry
	var next time.Time
	for _, key := range b.order {
		switch e := b.entries[key]; {
		case e.after.After(now):
			if next.IsZero() || e.after.Before(next) {
				next = e.after
			}
		case len(out) < batchMost:
			out = append(out, e)
		}
	}
	if len(out) == 0 && !next.IsZero() {
		b.retry.Reset(next.Sub(now))
	}
	return out
}

// taken notes that the writer has the batch.
func (b *inbox) taken(batch []*entry) {
	for _, e := range batch {
		b.forget(e)
		b.writing[e.key] = true
	}
	b.order = slices.DeleteFunc(b.order, func(key string) bool { return b.entries[key] == nil })
}

// A result is what became of an entry.
type result struct {
	entry *entry
	err   error
}

// settle answers who waited for what was written, and puts back what has to be
// tried again, unless a newer word came.
func (g *Gateway) settle(results []result) {
	for _, r := range results {
		e := r.entry
		delete(g.inbox.writing, e.key)
		if r.err != nil && e.tries < triesMost && !errors.Is(r.err, schema.ErrRefused) {
			g.again(e)
			continue
		}
		if r.err != nil {
			g.faults.count(e.node, "report not stored")
			g.log.Debug("report not stored", "node", string(e.node), "key", e.key, "error", r.err)
		}
		g.finish(e.jobs, r.err)
	}
}

// finish counts an entry off the requests that waited for it.
func (g *Gateway) finish(jobs []*job, err error) {
	for _, j := range jobs {
		j.waiting--
		if err != nil {
			j.err = err
		}
		if j.waiting > 0 || j.answered {
			continue
		}
		j.answered = true
		answer := kv.Answer{}
		switch {
		case j.err != nil:
			answer = kv.AnswerError(fmt.Errorf("not stored: %w: %w", j.err, schema.ErrUnavailable))
		case j.request.Verb == kv.VerbNode:
			at := g.generationOf(g.node(j.request.Node))
			answer.Generation = &at
		}
		g.answer(j.request, answer)
	}
}

// again puts an entry back for another try.
func (g *Gateway) again(e *entry) {
	if newer := g.inbox.entries[e.key]; newer != nil {
		newer.jobs = append(newer.jobs, e.jobs...)
		newer.lease = newer.lease || e.lease
		if newer.value == nil {
			newer.value = e.value
			g.inbox.bytes[newer.node] += len(e.value)
		}
		return
	}
	e.tries++
	d := retryFirst << e.tries
	e.after = time.Now().Add(d/2 + rand.N(d/2))
	if err := g.inbox.put(e, nil); err != nil {
		g.finish(e.jobs, err)
	}
}
