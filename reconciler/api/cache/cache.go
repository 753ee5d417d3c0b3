package cache

import (
	"context"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/pawl-project/pawl/schema"
)

// Options bound a cache.
type Options struct {
	Window int // events kept of each kind, for some minutes; 0: 4096
	// WindowBytes is how much the events may keep in memory that would else be
	// free, roughly, in bytes; a quarter of what the objects themselves take is
	// added to it. 0: 12 MiB.
	WindowBytes int
	// EncodedBytes bounds the encodings that are kept, in bytes; beyond it they
	// are made for each reader. 0: 128 MiB.
	EncodedBytes int
	// AheadBytes bounds the encodings that are made before anybody asks, in bytes,
	// so that the first list of many objects costs no more than the next; they stay
	// as long as their objects. 0: 32 MiB, which is some 16,000 pods.
	AheadBytes int
}

func (o Options) withDefaults() Options {
	if o.Window <= 0 {
		o.Window = 4096
	}
	if o.WindowBytes <= 0 {
		o.WindowBytes = 12 << 20
	}
	if o.EncodedBytes <= 0 {
		o.EncodedBytes = 128 << 20
	}
	if o.AheadBytes == 0 {
		o.AheadBytes = 32 << 20
	}
	return o
}

// A Cache is safe for use by several goroutines.
type Cache struct {
	o         Options
	encodings encodings

	mu      sync.RWMutex
	version uint64 // the newest one given out
	shelves map[schema.Kind]*shelf
	held    int           // weight of all objects
	kept    int           // weight of what only the rings keep
	grown   chan struct{} // closed when version grows; nil: nobody waits

	watchers atomic.Int64
}

// New makes an empty cache, of version 0.
func New(o Options) *Cache {
	c := &Cache{o: o.withDefaults(), shelves: map[schema.Kind]*shelf{}}
	c.encodings.limit, c.encodings.ahead = int64(c.o.EncodedBytes), int64(c.o.AheadBytes)
	return c
}

// An Event is one change of one object. It is read-only.
type Event struct {
	Type    watch.EventType // Added, Modified or Deleted
	Item    *Item           // of a deleted one the last state, with the deletion's version
	Old     *Item           // what it was before; nil when it was added
	Version uint64          // that of Item
}

// Put takes an object in. The cache owns it from now on: it sets its
// resourceVersion, and its TypeMeta where that is empty. What the object refers
// to may be shared with others who do not change it either.
//
// version is raised to one above the newest when it is not above that already;
// 0 stands for the next one. An object that is as it was and comes with no newer
// version than it came with before is no event.
func (c *Cache) Put(k schema.ObjectKey, o schema.Object, version uint64) {
	c.mu.RLock()
	old := c.shelves[k.Kind].get(k.Namespace, k.Name)
	c.mu.RUnlock()
	if old != nil && version <= old.given && same(old.object, o) {
		return
	}
	i := c.newItem(k, o, version)
	c.place(i, version)
	i.encodeAhead()
}

// place puts an item on its shelf.
func (c *Cache) place(i *Item, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shelf(i.Key.Kind)
	at, found := s.find(i.Key.Namespace, i.Key.Name)
	e := Event{Type: watch.Added, Item: i}
	if found {
		e.Type, e.Old = watch.Modified, s.sorted[at]
		c.held -= e.Old.weight
	}
	i.setVersion(c.next(version))
	s.set(at, found, i)
	c.held += i.weight
	c.record(s, e)
}

// Delete takes an object out, if it is there. version is as that of Put.
func (c *Cache) Delete(k schema.ObjectKey, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shelf(k.Kind)
	at, found := s.find(k.Namespace, k.Name)
	if !found {
		return
	}
	old := s.sorted[at]
	last := c.newItem(k, shallow(old.object), version)
	last.weight = 0 // all it holds is old's
	last.setVersion(c.next(version))
	s.remove(at)
	c.held -= old.weight
	c.record(s, Event{Type: watch.Deleted, Item: last, Old: old})
}

// next is the version of the next change. c.mu is held.
func (c *Cache) next(given uint64) uint64 {
	c.raise(max(given, c.version+1))
	return c.version
}

func (c *Cache) raise(version uint64) {
	if version <= c.version {
		return
	}
	c.version = version
	if c.grown != nil {
		close(c.grown)
		c.grown = nil
	}
}

// A Loaded is one object for Load.
type Loaded struct {
	Key     schema.ObjectKey
	Object  schema.Object
	Version uint64
}

// Load fills an empty cache with the first whole picture. Its objects keep the
// versions they come with, whatever their order, unless two have the same one
// (the later by key then has one more). at is the version of the picture: no
// watch resumes from before it, because what was deleted until then is not known.
func (c *Cache) Load(objects []Loaded, at uint64) {
	byVersion(objects)
	for _, l := range objects {
		c.Put(l.Key, l.Object, l.Version)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raise(at)
	for _, info := range schema.Kinds() {
		c.shelf(info.Kind) // so that their floors are set too
	}
	for _, s := range c.shelves {
		c.kept -= s.ring.clear()
		s.ring.floor = c.version
	}
}

// Get returns one object.
func (c *Cache) Get(k schema.ObjectKey) (*Item, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	i := c.shelves[k.Kind].get(k.Namespace, k.Name)
	return i, i != nil
}

// List returns the objects of a kind, in one namespace or ("") in all, sorted by
// namespace and name, and the version of the whole cache at that moment. The
// slice is the caller's.
func (c *Cache) List(kind schema.Kind, namespace string) ([]*Item, uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	part := c.shelves[kind].in(namespace)
	items := make([]*Item, len(part))
	copy(items, part)
	return items, c.version
}

// Version is the newest version given out.
func (c *Cache) Version() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.version
}

// Wait returns when the cache has reached a version, or with ctx's error.
func (c *Cache) Wait(ctx context.Context, version uint64) error {
	for {
		c.mu.Lock()
		if c.version >= version {
			c.mu.Unlock()
			return nil
		}
		if c.grown == nil {
			c.grown = make(chan struct{})
		}
		grown := c.grown
		c.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Stats is what the cache holds.
type Stats struct {
	Objects, Events, Watchers int
	EncodedBytes              int // of the encodings that are kept
}

// Stats counts.
func (c *Cache) Stats() Stats {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := Stats{Watchers: int(c.watchers.Load()), EncodedBytes: int(c.encodings.bytes.Load())}
	for _, shelf := range c.shelves {
		s.Objects += len(shelf.sorted)
		s.Events += shelf.ring.count
	}
	return s
}

// same compares all but the resourceVersion and the TypeMeta, which fresh need
// not have yet.
func same(old, fresh schema.Object) bool {
	version, gvk := fresh.GetResourceVersion(), fresh.GetObjectKind().GroupVersionKind()
	fresh.SetResourceVersion(old.GetResourceVersion())
	fresh.GetObjectKind().SetGroupVersionKind(old.GetObjectKind().GroupVersionKind())
	ok := equality.Semantic.DeepEqual(old, fresh)
	fresh.SetResourceVersion(version)
	fresh.GetObjectKind().SetGroupVersionKind(gvk)
	return ok
}

// shallow copies the object's struct; what it refers to is shared.
func shallow(o schema.Object) schema.Object {
	v := reflect.ValueOf(o).Elem()
	c := reflect.New(v.Type())
	c.Elem().Set(v)
	return c.Interface().(schema.Object)
}

func formatVersion(v uint64) string { return strconv.FormatUint(v, 10) }
