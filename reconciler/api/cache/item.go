package cache

import (
	"fmt"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/pawl-project/pawl/reconciler/api/wirejson"
	"github.com/pawl-project/pawl/schema"
)

// An Item is one state of one object. It is read-only and shared by all readers.
type Item struct {
	Key     schema.ObjectKey
	Version uint64 // its resourceVersion

	given  uint64 // the version that it was put in with
	weight int    // in memory, in bytes, roughly
	size   int    // of its protobuf message in bytes, before it had its version; 0 of a kind that has none
	object schema.Object
	shared *encodings
	json   atomic.Pointer[encoding]
	proto  atomic.Pointer[encoding]
}

// newItem makes an item of an object that nobody else has. It has no version yet.
func (c *Cache) newItem(k schema.ObjectKey, o schema.Object, given uint64) *Item {
	if o.GetObjectKind().GroupVersionKind().Kind == "" {
		if info, ok := schema.LookupKind(k.Kind); ok {
			o.GetObjectKind().SetGroupVersionKind(info.GVK)
		}
	}
	size := 0
	if s, ok := o.(interface{ Size() int }); ok {
		size = s.Size()
	}
	return &Item{Key: k, given: given, weight: weigh(size), size: size, object: o, shared: &c.encodings}
}

func (i *Item) setVersion(v uint64) {
	i.Version = v
	i.object.SetResourceVersion(formatVersion(v))
}

// Object is the object, with TypeMeta and resourceVersion. It is read-only.
func (i *Item) Object() schema.Object { return i.object }

// JSON is the object as compact JSON without a newline. The bytes are read-only.
func (i *Item) JSON() []byte {
	return i.shared.get(&i.json, func() ([]byte, error) { return wirejson.Marshal(i.object) }, i.Key)
}

// Proto is the object's protobuf message, without the envelope that Kubernetes
// puts around it; nil of a kind that has none. The bytes are read-only.
func (i *Item) Proto() []byte {
	m, ok := i.object.(interface{ MarshalToSizedBuffer([]byte) (int, error) })
	if !ok {
		return nil
	}
	return i.shared.get(&i.proto, func() ([]byte, error) {
		// Marshal would measure the object first, which takes longer than writing
		// it. It is written from the end to the front.
		b := make([]byte, i.size+versionBytes)
		n, err := m.MarshalToSizedBuffer(b)
		return b[len(b)-n:], err
	}, i.Key)
}

// encodeAhead makes both encodings while the object is at hand, as far as there is
// room for that: later it lies scattered in memory, and fetching it from there
// takes longer than all else. A Secret is never answered as it is in here.
func (i *Item) encodeAhead() {
	if i.Key.Kind != schema.Secrets && i.shared.bytes.Load()+int64(3*i.size) < i.shared.ahead {
		i.JSON()
		i.Proto()
	}
}

// versionBytes is what the resourceVersion may add to a message that was measured
// without it: 20 digits, and longer lengths of what they are in.
const versionBytes = 32

// weigh guesses what an object takes in memory, in bytes: strings and pointers
// make three times of what stands on the wire.
func weigh(size int) int {
	if size > 0 {
		return 1024 + 3*size
	}
	return 4096
}

// An encoding is what an object is on the wire.
type encoding struct {
	bytes []byte
	used  atomic.Uint32 // the round in which somebody last wanted it
}

// encodings keeps count of the encodings of all items.
type encodings struct {
	limit int64
	ahead int64        // of limit, what is kept whether anybody wants it or not
	bytes atomic.Int64 // kept, those of items included that nobody has any more
	round atomic.Uint32
}

// get returns what p keeps, or makes it, and keeps it while there is room.
func (e *encodings) get(p *atomic.Pointer[encoding], encode func() ([]byte, error), k schema.ObjectKey) []byte {
	round := e.round.Load()
	if kept := p.Load(); kept != nil {
		if kept.used.Load() != round {
			kept.used.Store(round)
		}
		return kept.bytes
	}
	text, err := encode()
	if err != nil {
		// Every object in here was decoded from JSON or made by our own hands.
		panic(fmt.Sprintf("cache: %s cannot be encoded: %v", k, err))
	}
	if e.bytes.Load()+int64(len(text)) > e.limit {
		return text
	}
	fresh := &encoding{bytes: text}
	fresh.used.Store(round)
	if p.CompareAndSwap(nil, fresh) {
		e.bytes.Add(int64(len(text)))
	}
	return text
}

// Sweep drops the encodings that nobody has wanted since the Sweep before the
// last, but for as many of present objects as are made ahead, and the events that happened before the last ten. Call it every half a
// minute: so an idle cache holds no more than its objects.
func (c *Cache) Sweep() {
	c.age()
	if c.encodings.bytes.Load() == 0 {
		return
	}
	round := c.encodings.round.Add(1)
	before := c.encodings.bytes.Load()
	var left int64
	c.mu.RLock()
	for _, s := range c.shelves {
		for _, i := range s.sorted {
			left += i.sweep(round, left < c.encodings.ahead)
		}
		for n := s.ring.first; n < s.ring.end(); n++ {
			if e := s.ring.at(n); e.Old != nil {
				left += e.Old.sweep(round, false)
			}
			if e := s.ring.at(n); e.Type == watch.Deleted {
				left += e.Item.sweep(round, false)
			}
		}
	}
	c.mu.RUnlock()
	c.encodings.bytes.Add(left - before) // what was made meanwhile stays counted
}

// sweep returns what it leaves, in bytes.
func (i *Item) sweep(round uint32, stays bool) (left int64) {
	for _, p := range []*atomic.Pointer[encoding]{&i.json, &i.proto} {
		switch e := p.Load(); {
		case e == nil:
		case !stays && round-e.used.Load() > 1:
			p.Store(nil)
		default:
			left += int64(len(e.bytes))
		}
	}
	return left
}
