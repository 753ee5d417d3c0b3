package kv

import (
	"maps"
	"slices"
	"sync"
)

// Changes tells one subscriber of a view what changed since it last asked. It
// holds each key once, however often it changed, so that a slow subscriber
// costs no more than the keys there are.
type Changes struct {
	// C holds a token when a key changed, or when the view became whole or
	// ceased to be, since the token was last taken.
	C <-chan struct{}

	c     chan struct{}
	close func()

	mu   sync.Mutex
	keys map[string]struct{}
}

// Subscribe returns news of the view, beginning with every key that it holds.
// Close it when done.
func (v *View[T]) Subscribe() *Changes {
	ch := make(chan struct{}, 1)
	s := &Changes{C: ch, c: ch, keys: map[string]struct{}{}}
	s.close = func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.changes, s)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for k := range v.now.entries {
		s.keys[k] = struct{}{}
	}
	if v.whole || len(s.keys) > 0 {
		signal(ch)
	}
	v.changes[s] = struct{}{}
	return s
}

// Drain returns the keys that changed since the last Drain, sorted: what was
// put, deleted, or can no longer be decoded.
func (s *Changes) Drain() []string {
	s.mu.Lock()
	keys := s.keys
	s.keys = map[string]struct{}{}
	s.mu.Unlock()
	return slices.Sorted(maps.Keys(keys))
}

// Close ends the subscription; C is never signalled again.
func (s *Changes) Close() { s.close() }

// changed notes a key for every subscriber and wakes them. v.mu is held.
func (v *View[T]) changed(key string) {
	v.note(key)
	v.wake()
}

func (v *View[T]) note(key string) {
	for s := range v.changes {
		s.mu.Lock()
		s.keys[key] = struct{}{}
		s.mu.Unlock()
	}
}

func (v *View[T]) wake() {
	for s := range v.changes {
		signal(s.c)
	}
}
