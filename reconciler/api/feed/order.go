package feed

import (
	"time"

	"github.com/pawl-project/pawl/schema"
)

const (
	// settle is how long a change waits for those that were stored before it and
	// come by another stream.
	settle = 2 * time.Millisecond
	// moving is how long a stream counts as on the move after it has delivered
	// something: a message has its time before it is on the disk, and comes after.
	moving = 8 * time.Millisecond
	// holdMost bounds the wait for a view that is behind.
	holdMost = 30 * time.Millisecond
)

// The versions of objects are the times at which the store took their parts, but
// the streams deliver each at their own pace, and the cache raises the version of
// what comes too late. So what is newer than a stream has come to, while that
// stream is on the move, is held for a little.
type order struct {
	moving, most time.Duration                  // see the constants
	came         [4]time.Time                   // how far each stream had come at the last step
	moved        [4]time.Time                   // when it was last seen to come further
	held         map[schema.ObjectKey]time.Time // since when
}

func newOrder() order {
	return order{moving: moving, most: holdMost, held: map[schema.ObjectKey]time.Time{}}
}

// safe is up to when nothing older is to be expected, going by how far the
// streams have come now. Zero: there is no such limit.
func (o *order) safe(come [4]time.Time, now time.Time) time.Time {
	var limit time.Time
	for i, t := range come {
		if t.After(o.came[i]) {
			o.moved[i] = now
		}
		if now.Sub(o.moved[i]) < o.moving && (limit.IsZero() || t.Before(limit)) {
			limit = t
		}
	}
	o.came = come
	return limit
}

// hold says whether an answer is to wait. What is gone does not: its version is
// whatever comes next.
func (o *order) hold(a answer, safe, now time.Time) bool {
	if a.object == nil || safe.IsZero() || !a.stored.After(safe) {
		return false
	}
	since, known := o.held[a.key]
	if !known {
		o.held[a.key] = now
	}
	return !known || now.Sub(since) < o.most
}
