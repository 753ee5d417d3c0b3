package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// ErrGone is wrapped when the window does not reach back far enough: list again.
var ErrGone = errors.New("too old resource version")

// waitForFuture is how long a watcher waits for a version that is not there yet.
const waitForFuture = 3 * time.Second

type tooOld struct{ from, floor uint64 }

func (e *tooOld) Error() string {
	return fmt.Sprintf("too old resource version: %d (%d)", e.from, e.floor)
}
func (e *tooOld) Unwrap() error { return ErrGone }

// A TooLarge is the error for a version that the cache has not reached within
// three seconds. It wraps schema.ErrUnavailable.
type TooLarge struct{ Wanted, Current uint64 }

// Error says it in Kubernetes' words.
func (e *TooLarge) Error() string {
	return fmt.Sprintf("Too large resource version: %d, current: %d", e.Wanted, e.Current)
}

// Unwrap says that time helps.
func (e *TooLarge) Unwrap() error { return schema.ErrUnavailable }

// A Watcher hands out the events of one kind, in one namespace or in all, in
// the order of their versions, each once. It is for one goroutine, but for
// Close. All it holds is a place in the ring.
type Watcher struct {
	cache     *Cache
	shelf     *shelf
	namespace string
	from      uint64
	next      uint64 // number of the event to look at next
	at        uint64 // every event up to this version was handed out
	reached   bool   // the cache has come to from

	closed chan struct{}
	once   sync.Once
}

// Watch begins to watch a kind: the events with versions above from, which need
// not be that of an event (a list's is not). The error wraps ErrGone when the
// window does not reach back that far. A version that is not there yet is waited
// for by the first Next. Close the watcher when done.
func (c *Cache) Watch(kind schema.Kind, namespace string, from uint64) (*Watcher, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shelf(kind)
	if from < s.ring.floor {
		return nil, &tooOld{from, s.ring.floor}
	}
	c.watchers.Add(1)
	return &Watcher{
		cache: c, shelf: s, namespace: namespace, from: from, next: s.ring.after(from), at: from,
		closed: make(chan struct{}),
	}, nil
}

// errClosed is what Next returns after Close.
var errClosed = errors.New("watcher is closed")

// Next returns the next event, and waits for it as long as ctx lets it. The
// error wraps ErrGone when the watcher has fallen behind the window; is a
// *TooLarge when the version to begin from did not come; else it is ctx's.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	if err := w.reach(ctx); err != nil {
		return Event{}, err
	}
	for {
		e, wake, err := w.look()
		if err != nil || wake == nil {
			return e, err
		}
		select {
		case <-wake:
		case <-w.closed:
			return Event{}, errClosed
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// look returns the next event that is there, or else what tells of one.
func (w *Watcher) look() (e Event, wake <-chan struct{}, err error) {
	w.cache.mu.RLock()
	defer w.cache.mu.RUnlock()
	r := &w.shelf.ring
	if w.next < r.first {
		return Event{}, nil, &tooOld{w.at, r.floor}
	}
	for ; w.next < r.end(); w.next++ {
		e := r.at(w.next)
		if e.Version <= w.from || w.namespace != "" && e.Item.Key.Namespace != w.namespace {
			continue
		}
		w.next++
		w.at = e.Version
		return *e, nil, nil
	}
	w.at = max(w.from, w.cache.version)
	return Event{}, w.shelf.wake, nil
}

// reach waits for the version to begin from.
func (w *Watcher) reach(ctx context.Context) error {
	if w.reached {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, waitForFuture)
	defer cancel()
	if err := w.cache.Wait(limited, w.from); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &TooLarge{w.from, w.cache.Version()}
	}
	w.reached = true
	return nil
}

// Version is up to where the watcher has come: every event of its kind and
// namespace up to it was handed out, and none after it. It is what a bookmark says.
func (w *Watcher) Version() uint64 {
	w.cache.mu.RLock()
	defer w.cache.mu.RUnlock()
	r := &w.shelf.ring
	if w.next < r.first {
		return w.at
	}
	for n := w.next; n < r.end(); n++ {
		e := r.at(n)
		if w.namespace == "" || e.Item.Key.Namespace == w.namespace {
			return max(w.at, e.Version-1)
		}
	}
	return max(w.at, w.cache.version)
}

// Close ends the watcher; a Next that waits returns.
func (w *Watcher) Close() {
	w.once.Do(func() {
		w.cache.watchers.Add(-1)
		close(w.closed)
	})
}

// Between returns the events of a kind, in one namespace or in all, with
// versions above after and up to upTo. The error wraps ErrGone when the window
// does not reach back that far.
func (c *Cache) Between(kind schema.Kind, namespace string, after, upTo uint64) ([]Event, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.shelves[kind]
	if s == nil {
		return nil, nil
	}
	if after < s.ring.floor {
		return nil, &tooOld{after, s.ring.floor}
	}
	var events []Event
	for n := s.ring.after(after); n < s.ring.end(); n++ {
		e := s.ring.at(n)
		if e.Version > upTo {
			break
		}
		if namespace == "" || e.Item.Key.Namespace == namespace {
			events = append(events, *e)
		}
	}
	return events, nil
}
