package kv

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// troubleGrace is how long writes may fail before that is trouble: a server that
// is restarted is back before.
const troubleGrace = 3 * time.Second

// troubles is which buckets take no writes. The zero value is none.
type troubles struct {
	mu    sync.Mutex
	since map[Bucket]time.Time
	err   map[Bucket]error
}

// note keeps how a write to a bucket ended. A conflict is an answer.
func (t *troubles) note(b Bucket, err error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !errors.Is(err, schema.ErrUnavailable) {
		delete(t.since, b)
		delete(t.err, b)
		return
	}
	if t.since == nil {
		t.since, t.err = map[Bucket]time.Time{}, map[Bucket]error{}
	}
	if _, known := t.since[b]; !known {
		t.since[b] = now
	}
	t.err[b] = err
}

// Trouble says which bucket has taken no writes for some seconds, and why; nil
// when all do, as far as anybody tried.
func (s *Store) Trouble() error {
	t := &s.troubles
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range []Bucket{Desired, Assignments, Actuals} {
		if since, ok := t.since[b]; ok && time.Since(since) >= troubleGrace {
			return fmt.Errorf("the store takes no writes since %s: %w", since.UTC().Format(time.RFC3339), t.err[b])
		}
	}
	return nil
}
