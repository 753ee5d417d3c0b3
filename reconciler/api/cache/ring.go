package cache

import (
	"slices"
	"sort"
)

// A ring is the newest events of one kind, oldest first. Events are numbered
// from 0 in the order in which they happened, for ever: a number below first has
// left the window.
type ring struct {
	events []Event // a circle; its size is a power of two
	start  int     // index of the oldest
	count  int
	first  uint64   // number of the oldest
	floor  uint64   // version of the newest event that left; every later one is here
	kept   int      // weight of all events
	marks  []uint64 // end at each of the last Sweeps, oldest first
}

// end is the number of the next event.
func (r *ring) end() uint64 { return r.first + uint64(r.count) }

// at is the event of a number in [first, end).
func (r *ring) at(number uint64) *Event {
	return &r.events[(r.start+int(number-r.first))&(len(r.events)-1)]
}

func (r *ring) push(e Event) {
	if r.count == len(r.events) {
		r.grow()
	}
	r.events[(r.start+r.count)&(len(r.events)-1)] = e
	r.count++
	r.kept += e.weight()
}

func (r *ring) grow() {
	bigger := make([]Event, max(16, 2*len(r.events)))
	n := copy(bigger, r.events[r.start:])
	copy(bigger[n:], r.events[:r.start])
	r.events, r.start = bigger, 0
}

// drop forgets the oldest event and returns what it weighed.
func (r *ring) drop() int {
	e := &r.events[r.start]
	w := e.weight()
	r.floor = e.Version
	*e = Event{}
	r.start = (r.start + 1) & (len(r.events) - 1)
	r.count--
	r.first++
	r.kept -= w
	return w
}

// sweepsKept is for how many Sweeps an event is kept, if there is room.
const sweepsKept = 10

// age forgets what happened before the last Sweeps.
func (c *Cache) age() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.shelves {
		r := &s.ring
		r.marks = append(r.marks, r.end())
		if len(r.marks) <= sweepsKept {
			continue
		}
		for r.first < r.marks[0] {
			c.kept -= r.drop()
		}
		r.marks = slices.Delete(r.marks, 0, 1)
		if r.count == 0 {
			r.events, r.start = nil, 0
		}
	}
}

// clear forgets all events and returns what they weighed.
func (r *ring) clear() int {
	w := 0
	for r.count > 0 {
		w += r.drop()
	}
	r.events, r.start = nil, 0
	return w
}

// after is the number of the first event with a greater version.
func (r *ring) after(version uint64) uint64 {
	return r.first + uint64(sort.Search(r.count, func(n int) bool {
		return r.at(r.first+uint64(n)).Version > version
	}))
}

// weight is what the event keeps in memory that would else be free: what it
// replaced. The newer state is either current, or replaced by a later event.
func (e *Event) weight() int {
	if e.Old == nil {
		return 0
	}
	return e.Old.weight
}

// record adds an event that has its item's version, and wakes all who watch.
// c.mu is held.
func (c *Cache) record(s *shelf, e Event) {
	e.Version = e.Item.Version
	if s.ring.count == c.o.Window {
		c.kept -= s.ring.drop()
	}
	s.ring.push(e)
	c.kept += e.weight()
	for limit := c.o.WindowBytes + c.held/4; c.kept > limit; {
		c.kept -= c.heaviest().ring.drop()
	}
	close(s.wake)
	s.wake = make(chan struct{})
}

// heaviest is the shelf whose oldest event goes first when the windows keep too much.
func (c *Cache) heaviest() *shelf {
	var most *shelf
	for _, s := range c.shelves {
		if most == nil || s.ring.kept > most.ring.kept {
			most = s
		}
	}
	return most
}
