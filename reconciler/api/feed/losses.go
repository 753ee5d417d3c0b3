package feed

import (
	"slices"
	"time"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// lossGrace is how long an object stays though the store has lost one of its
// keys: time enough for Git and the nodes to fill the store again.
const lossGrace = 30 * time.Second

// losses is the objects of which the store has lost a key.
type losses struct {
	grace   time.Duration
	waiting map[schema.ObjectKey]time.Time // left as they are until then
	gone    map[schema.ObjectKey]bool      // that time has passed
}

// waitsForLost says whether an object is left as it is because the store has
// lost one of its keys and may get it back.
func (f *Feed) waitsForLost(k schema.ObjectKey, now time.Time) bool {
	if !f.lacksKey(k) {
		delete(f.waiting, k)
		delete(f.gone, k)
		return false
	}
	if f.gone[k] {
		return false
	}
	until, known := f.waiting[k]
	if !known {
		until = now.Add(f.grace)
		f.waiting[k] = until
	}
	if now.Before(until) {
		return true
	}
	delete(f.waiting, k)
	f.gone[k] = true
	if !f.inRepository(k) {
		f.dropBare(k)
	}
	return false
}

func (f *Feed) inRepository(k schema.ObjectKey) bool {
	_, ok := f.Desired.Get(kv.ObjectKey(k))
	return ok
}

// lacksKey says whether the store has lost a key of an object.
func (f *Feed) lacksKey(k schema.ObjectKey) bool {
	if k.Kind == schema.Events {
		return false
	}
	key := kv.ObjectKey(k)
	if f.Desired.Lost(key) || f.Actual.Lost(key) {
		return true
	}
	if k.Kind != schema.Pods {
		return false
	}
	pod := schema.PodKey{Namespace: k.Namespace, Name: k.Name}
	return slices.ContainsFunc(f.nodes[pod], func(n schema.NodeName) bool {
		return f.Assignments.Lost(kv.AssignmentKey(n, pod))
	})
}

// overdue lists the objects that have waited long enough.
func (f *Feed) overdue(now time.Time) []schema.ObjectKey {
	var keys []schema.ObjectKey
	for k, until := range f.waiting {
		if !now.Before(until) {
			keys = append(keys, k)
		}
	}
	return keys
}

// patience is how long to sleep when nothing happens.
func (f *Feed) patience(now time.Time) time.Duration {
	if !f.Ready() {
		return 50 * time.Millisecond
	}
	d := time.Hour
	for _, until := range f.waiting {
		d = min(d, max(until.Sub(now), 0))
	}
	return d
}
