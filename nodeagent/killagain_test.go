package nodeagent_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-project/pawl/nodeagent/runtimetest"
	"github.com/pawl-project/pawl/schema"
)

// A KILL that could not be sent is sent again as soon as the runtime answers:
// only one that was sent gets its time.
func TestKillThatWasNotSent(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var away atomic.Bool
		r.world.trouble = func(_ context.Context, call string) error {
			if away.Load() && call == "signal KILL" {
				return fmt.Errorf("no containerd: %w", schema.ErrUnavailable)
			}
			return nil
		}
		r.begin(true)
		p := newPod("a", runtimetest.IgnoresTERM...)
		r.assign(p)
		r.after(time.Second)
		away.Store(true)
		r.delete(p, 0)
		r.after(2500 * time.Millisecond) // two failures, a second and two from one to the next
		away.Store(false)
		r.after(1500 * time.Millisecond)
		if x, _ := r.report(p.UID); !x.Gone {
			t.Errorf("the pod is not gone: %v", r.containers(p.UID))
		}
		r.after(time.Minute) // of gathering events
		r.ctl.mu.Lock()
		defer r.ctl.mu.Unlock()
		for _, e := range r.ctl.events {
			if e.Reason == "Killing" && e.Count != 1 {
				t.Errorf("it is told %d times that the container is stopped", e.Count)
			}
		}
	})
}
