package gateway

import (
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// faults counts what goes wrong by cause, and logs each cause at most once a
// minute: a node must not be able to fill the log.
type faults struct {
	log *slog.Logger

	mu     sync.Mutex
	total  map[string]uint64
	logged map[string]time.Time
	since  map[string]uint64 // that were not logged
}

func newFaults(log *slog.Logger) *faults {
	return &faults{log: log, total: map[string]uint64{}, logged: map[string]time.Time{}, since: map[string]uint64{}}
}

// count notes a fault of a node. Causes are few and fixed.
func (f *faults) count(n schema.NodeName, cause string) {
	now := time.Now()
	f.mu.Lock()
	f.total[cause]++
	f.since[cause]++
	times := f.since[cause]
	quiet := now.Sub(f.logged[cause]) < time.Minute
	if !quiet {
		f.logged[cause] = now
		f.since[cause] = 0
	}
	f.mu.Unlock()
	if !quiet {
		f.log.Warn("a node's request fails", "cause", cause, "node", string(n), "times", times)
	}
}

func (f *faults) totals() map[string]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.total)
}
