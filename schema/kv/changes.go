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

	c       chan struct{}
	close   func()
	follows bool // see Follow

	mu   sync.Mutex
	keys map[string]struct{}
}

// Subscribe returns news of the view, beginning with every key that it holds.
// Close it when done.
func (v *View[T]) Subscribe() *Changes { return v.subscribe(false) }

// Follow is Subscribe for those who need to know when an entry was stored: it
// tells of a key when the watch has delivered its change, also of one that Apply
// has shown before, and not of what only Apply has shown. Who finds an entry
// whose Stored is zero lets it be: it will be told of it again.
func (v *View[T]) Follow() *Changes { return v.subscribe(true) }

func (v *View[T]) subscribe(follows bool) *Changes {
	ch := make(chan struct{}, 1)
	s := &Changes{C: ch, c: ch, keys: map[string]struct{}{}, follows: follows}
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

// changed notes a key and wakes whom it concerns. v.mu is held.
func (v *View[T]) changed(key string, news, delivered bool) {
	for s := range v.changes {
		if s.note(key, news, delivered) {
			signal(s.c)
		}
	}
}

// note notes a key and wakes nobody.
func (v *View[T]) note(key string, news, delivered bool) {
	for s := range v.changes {
		s.note(key, news, delivered)
	}
}

// note says whether the change concerns the subscriber: news those of Subscribe,
// a delivery those of Follow.
func (s *Changes) note(key string, news, delivered bool) bool {
	if s.follows && !delivered || !s.follows && !news {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key] = struct{}{}
	return true
}

func (v *View[T]) wake() {
	for s := range v.changes {
		signal(s.c)
	}
}
