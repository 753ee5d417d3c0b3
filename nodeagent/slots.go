package nodeagent

import (
	"context"
	"time"
)

// slowCall is how long a call may hold its slot. One that hangs keeps its own pod
// waiting, but no other.
const slowCall = 10 * time.Second

// slots bounds how many calls are made at once.
type slots struct{ free chan struct{} }

func newSlots(n int) *slots { return &slots{free: make(chan struct{}, n)} }

// take waits for a slot; release gives it back, once, on its own after slowCall.
func (s *slots) take(ctx context.Context) (release func(), err error) {
	select {
	case s.free <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t := time.AfterFunc(slowCall, func() { <-s.free })
	return func() {
		if t.Stop() {
			<-s.free
		}
	}, nil
}
