package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// An Entry is one key of a bucket. Value is shared: it is never changed, by anybody.
type Entry[T any] struct {
	Key      string
	Value    T
	Revision uint64
	// Stored is when the server stored this revision, by its clock; zero while
	// the revision is known from Apply alone.
	Stored time.Time
}

// A View is a whole bucket in memory, decoded, kept up to date by an ordered
// watch. It is what decisions are made from. It is safe for use by several
// goroutines.
//
// A value that cannot be decoded poisons only its key: see Poisoned.
type View[T any] struct {
	store  *Store
	bucket Bucket
	decode func(key string, raw []byte) (T, error)
	log    *slog.Logger

	mu      sync.RWMutex
	now     *picture[T] // what readers see
	next    *picture[T] // being read after a loss; nil when now is kept up to date
	whole   bool
	lost    map[string]struct{} // vanished without having been deleted
	losses  uint64
	since   time.Time // when the bucket was made
	changes map[*Changes]struct{}
}

// A picture is what a view holds of a bucket.
type picture[T any] struct {
	entries  map[string]Entry[T]
	poisoned map[string]poison
	// gone holds deletions that the watch has not delivered yet, so that an
	// older value that it still has to deliver does not bring the key back.
	gone   map[string]uint64
	marked map[string]struct{} // keys whose deletion a first value of the watch told of; nil once whole
	seen   uint64              // the watch has delivered everything up to this revision
	newest time.Time           // when the newest of that was stored, deletions included
	sorted []string            // keys of entries; nil: to be made again
}

type poison struct {
	revision uint64
	err      error
}

// NewView makes a view of a bucket; Run fills it.
func NewView[T any](s *Store, b Bucket, decode func(key string, raw []byte) (T, error)) *View[T] {
	return &View[T]{
		store: s, bucket: b, decode: decode,
		log:     s.conn.log.With("bucket", string(b)),
		now:     newPicture[T](),
		lost:    map[string]struct{}{},
		changes: map[*Changes]struct{}{},
	}
}

func newPicture[T any]() *picture[T] {
	return &picture[T]{entries: map[string]Entry[T]{}, poisoned: map[string]poison{}, gone: map[string]uint64{}, marked: map[string]struct{}{}}
}

// Whole says whether the view holds all there is. It is false until the first
// complete set is in, and from a loss of the watch until the next one is; what
// the view held stays readable meanwhile, and may be old.
func (v *View[T]) Whole() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.whole
}

// Get returns the entry of a key. Of a key whose value cannot be decoded it
// returns the last value that could, if there was one; its Revision is always
// the newest, also when there was none, so that a write can replace it.
func (v *View[T]) Get(key string) (Entry[T], bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if e, ok := v.now.entries[key]; ok {
		return e, true
	}
	return Entry[T]{Key: key, Revision: v.now.poisoned[key].revision}, false
}

// Len is the number of entries.
func (v *View[T]) Len() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.now.entries)
}

// All yields the entries sorted by key, as they are when it is called.
func (v *View[T]) All() iter.Seq[Entry[T]] {
	v.mu.Lock()
	if v.now.sorted == nil {
		v.now.sorted = slices.Sorted(maps.Keys(v.now.entries))
	}
	all := make([]Entry[T], len(v.now.sorted))
	for i, k := range v.now.sorted {
		all[i] = v.now.entries[k]
	}
	v.mu.Unlock()
	return slices.Values(all)
}

// Poisoned says of each key whose newest value cannot be decoded why not.
func (v *View[T]) Poisoned() map[string]error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	m := make(map[string]error, len(v.now.poisoned))
	for k, p := range v.now.poisoned {
		m[k] = p.err
	}
	return m
}

// Apply makes a write visible at once that Commit has made with the revision
// rev. The error is that of decoding the value.
func (v *View[T]) Apply(w Write, rev uint64) error {
	if w.Bucket != v.bucket {
		return fmt.Errorf("view of %s: a write to %s is none of it", v.bucket, w.Bucket)
	}
	u := update[T]{key: w.Key, revision: rev, deleted: w.Delete, own: true}
	if !w.Delete {
		u.value, u.err = v.decode(w.Key, w.Value)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next != nil {
		v.next.put(u)
	}
	if news, _ := v.now.put(u); news {
		delete(v.lost, w.Key)
		v.changed(w.Key, news, false)
	}
	return u.err
}

// An update is a new state of one key.
type update[T any] struct {
	key      string
	revision uint64
	deleted  bool
	own      bool      // from Apply: the watch has yet to deliver it
	stored   time.Time // zero when own
	value    T
	err      error // the value cannot be decoded
}

// put takes an update in. It says whether it was news, and whether the watch has
// now delivered what readers see of the key.
func (p *picture[T]) put(u update[T]) (news, delivered bool) {
	if u.own && u.revision <= p.seen {
		return false, false // the watch was faster, and may have brought something newer since
	}
	if !u.own {
		p.seen = max(p.seen, u.revision)
		if u.stored.After(p.newest) {
			p.newest = u.stored
		}
	}
	old, exists := p.entries[u.key]
	bad, isBad := p.poisoned[u.key]
	if known := max(old.Revision, bad.revision, p.gone[u.key]); u.revision <= known {
		return false, !u.own && p.confirm(u)
	}
	delete(p.gone, u.key)
	delete(p.marked, u.key)
	switch {
	case u.deleted:
		if p.marked != nil {
			p.marked[u.key] = struct{}{}
		}
		delete(p.entries, u.key)
		delete(p.poisoned, u.key)
		if u.own {
			p.gone[u.key] = u.revision
		}
		if exists {
			p.sorted = nil
		}
		return exists || isBad, !u.own
	case u.err != nil:
		p.poisoned[u.key] = poison{u.revision, u.err}
		if exists { // the last good value stands: absence would mean deletion
			old.Revision = u.revision
			p.entries[u.key] = old
		}
	default:
		delete(p.poisoned, u.key)
		p.entries[u.key] = Entry[T]{Key: u.key, Value: u.value, Revision: u.revision, Stored: u.stored}
		if !exists {
			p.sorted = nil
		}
	}
	return true, !u.own
}

// confirm takes in what the watch delivers of a key that is known to be as new,
// or newer, and says whether it is just what Apply has shown.
func (p *picture[T]) confirm(u update[T]) bool {
	if gone := p.gone[u.key]; gone != 0 && u.revision >= gone {
		delete(p.gone, u.key) // nothing older will come
		return true
	}
	e, ok := p.entries[u.key]
	if !ok || e.Revision != u.revision || !e.Stored.IsZero() {
		return false
	}
	e.Stored = u.stored
	p.entries[u.key] = e
	return true
}

// Run keeps the view until ctx is done, and then returns nil. It watches again
// by itself whenever the watch is lost.
func (v *View[T]) Run(ctx context.Context) error {
	news := v.store.conn.Reconnected()
	defer news.Close()
	missing := make(chan struct{}, 1)
	defer v.store.onMissing(v.bucket, missing)()
	defer v.lose()
	for failures := 0; ctx.Err() == nil; {
		started := time.Now()
		err := v.watch(ctx, news.C, missing)
		v.lose()
		if ctx.Err() != nil {
			break
		}
		failures++
		if time.Since(started) > time.Minute {
			failures = 0
		}
		v.log.Debug("watch lost, watching again", "error", err)
		v.rest(ctx, news.C, failures)
	}
	return nil
}

// rest waits before the next watch: until the connection is back, or with
// growing pauses when it was never lost.
func (v *View[T]) rest(ctx context.Context, news <-chan struct{}, failures int) {
	d := min(10*time.Millisecond<<min(failures, 10), 5*time.Second)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
			if v.store.conn.Connected() {
				return
			}
		case <-t.C:
			if v.store.conn.Connected() {
				return
			}
			t.Reset(time.Second)
		}
	}
}

// watch fills the view and keeps it up to date until the watch is lost.
func (v *View[T]) watch(ctx context.Context, news, missing <-chan struct{}) error {
	ctx, cancel := v.store.conn.whileConnected(ctx, forEver)
	defer cancel()
	w, err := v.open(ctx)
	if err != nil {
		return err
	}
	defer drain(w)
	v.begin()
	first := firstValues{undelivered: func() (map[string]struct{}, error) {
		return undelivered(ctx, v.store.conn, v.bucket, ">", v.hasFirst)
	}}
	defer first.stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-news:
			if !v.store.conn.Connected() {
				return errLost
			}
		case <-missing:
			return errors.New("the bucket is gone")
		case <-first.again:
			err = first.look()
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errLost
			case e == nil:
				err = first.look()
			default:
				v.take(e)
				first.delivered(e.Key())
			}
		}
		if err != nil {
			return unavailable(fmt.Errorf("watch %s: %w", v.bucket, err))
		}
		if first.whole() {
			v.complete()
		}
	}
}

// forEver is a limit for what only the connection ends.
const forEver = 100 * 365 * 24 * time.Hour

func (v *View[T]) open(ctx context.Context) (jetstream.KeyWatcher, error) {
	limited, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	bucket, err := v.store.conn.js.KeyValue(limited, string(v.bucket))
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		// Somebody removed it. What it held is in Git and with the nodes.
		v.log.Warn("bucket is gone, making it anew")
		if err = v.store.ensure(ctx, bucketConfig(v.bucket, v.store.options.Replicas)); err == nil {
			bucket, err = v.store.conn.js.KeyValue(limited, string(v.bucket))
		}
	}
	if err != nil {
		return nil, unavailable(fmt.Errorf("open %s: %w", v.bucket, err))
	}
	if err := v.noteSince(limited, bucket); err != nil {
		return nil, unavailable(fmt.Errorf("open %s: %w", v.bucket, err))
	}
	w, err := bucket.WatchAll(ctx)
	if err != nil {
		return nil, unavailable(fmt.Errorf("watch %s: %w", v.bucket, err))
	}
	return w, nil
}

func (v *View[T]) noteSince(ctx context.Context, bucket jetstream.KeyValue) error {
	status, err := bucket.Status(ctx)
	if err != nil {
		return err
	}
	s, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return fmt.Errorf("status of a bucket is a %T", status)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since = s.StreamInfo().Created
	return nil
}

// Since is when the bucket was made, by the server's clock; zero until the view
// was whole for the first time.
func (v *View[T]) Since() time.Time {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.since
}

// drain ends a watch and takes what it still wants to say, without which its
// goroutine would never end.
func drain(w jetstream.KeyWatcher) {
	w.Stop() //nolint:errcheck // fails only when it is at its end already
	for range w.Updates() {
	}
}

// begin starts a new picture beside the one that readers see.
func (v *View[T]) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next = newPicture[T]()
}

// hasFirst says whether the picture that is being made has a key, or knows that
// it was deleted.
func (v *View[T]) hasFirst(key string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.next != nil && !v.next.lacks(key)
}

// take puts what the watch delivers into the picture that is being made.
func (v *View[T]) take(e jetstream.KeyValueEntry) {
	u := update[T]{key: e.Key(), revision: e.Revision(), deleted: e.Operation() != jetstream.KeyValuePut, stored: e.Created()}
	if !u.deleted {
		u.value, u.err = v.decode(u.key, e.Value())
	}
	if u.err != nil {
		v.log.Error("value cannot be read, leaving the key alone", "key", u.key, "revision", u.revision, "error", u.err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next != nil {
		v.next.put(u)
		return
	}
	news, delivered := v.now.put(u)
	if news {
		delete(v.lost, u.key)
	}
	if news || delivered {
		v.changed(u.key, news, delivered)
	}
}

// complete makes the new picture the one that readers see. Only now do entries
// vanish that are not in it any more.
func (v *View[T]) complete() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next == nil {
		return
	}
	old := v.now
	v.now, v.next = v.next, nil
	var changed []string
	for k, p := range v.now.poisoned {
		// The last good value outlives a loss of the watch.
		if e, ok := old.entries[k]; ok {
			e.Revision = p.revision
			v.now.entries[k] = e
		}
		if old.poisoned[k].revision != p.revision {
			changed = append(changed, k)
		}
	}
	for k, e := range v.now.entries {
		switch was := old.entries[k]; {
		case was.Revision != e.Revision:
			changed = append(changed, k)
		case !was.Stored.Equal(e.Stored): // Apply had shown it
			v.note(k, false, true)
		}
	}
	for k := range old.gone { // a deletion that Apply had shown
		v.note(k, false, true)
	}
	lost := len(v.lost)
	for k := range v.lost { // also what was lost before
		if !v.now.lacks(k) {
			delete(v.lost, k)
			lost--
		}
	}
	for k := range old.entries {
		if _, ok := v.now.entries[k]; ok {
			continue
		}
		changed = append(changed, k)
		if v.now.lacks(k) {
			v.lost[k] = struct{}{}
		}
	}
	for k := range old.poisoned {
		_, stays := v.now.entries[k]
		if _, ok := v.now.poisoned[k]; !ok && !stays {
			changed = append(changed, k)
		}
	}
	if n := len(v.lost) - lost; n > 0 {
		v.losses++
		v.log.Warn("the store has lost keys: they are gone without having been deleted", "keys", n, "left", len(v.now.entries))
	}
	v.now.marked = nil
	v.whole = true
	for _, k := range changed {
		v.note(k, true, true)
	}
	v.wake() // also when nothing changed: being whole is news
}

// lacks says whether the picture knows nothing at all of a key.
func (p *picture[T]) lacks(key string) bool {
	_, exists := p.entries[key]
	_, bad := p.poisoned[key]
	_, marked := p.marked[key]
	_, gone := p.gone[key]
	return !exists && !bad && !marked && !gone
}

// Lost says whether the store has lost a key: the view held it, and it is gone
// without anybody having deleted it. That is no reason to remove what it stood for.
func (v *View[T]) Lost(key string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	_, ok := v.lost[key]
	return ok
}

// Newest is when the newest message that the watch has delivered was stored, by
// the server's clock: a value or a deletion. It is zero when there was none.
func (v *View[T]) Newest() time.Time {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.now.newest
}

// Losses counts the times that keys were found to be lost.
func (v *View[T]) Losses() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.losses
}

// lose says that the view may be behind from now on.
func (v *View[T]) lose() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next = nil
	if v.whole {
		v.whole = false
		v.wake()
	}
}
