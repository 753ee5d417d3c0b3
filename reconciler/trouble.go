package reconciler

import (
	"fmt"
	"sync"
	"time"
)

// trouble is what the loop fails at, for people: /readyz shows it. Its zero
// value is no trouble; it is safe for use by several goroutines.
type trouble struct {
	mu    sync.Mutex
	err   error
	since time.Time
}

func (t *trouble) note(err error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.since = now
	}
	t.err = err
}

func (t *trouble) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = nil
}

// lasting is the trouble that has lasted for longer than what passes by itself.
func (t *trouble) lasting(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil || now.Sub(t.since) < troubleGrace {
		return nil
	}
	return fmt.Errorf("the reconciler fails since %s: %w", t.since.UTC().Format(time.RFC3339), t.err)
}

// troubleGrace is how long the loop may fail before it counts: a restarted
// server, say, is back before that.
const troubleGrace = 3 * time.Second

// ready says why nothing new can be decided: the views are not whole, or what
// is decided cannot be written.
func (l *loop) ready() error {
	if err := l.views.ready(); err != nil {
		return err
	}
	if err := l.store.Trouble(); err != nil {
		return err
	}
	return l.trouble.lasting(time.Now())
}
