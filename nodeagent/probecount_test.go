package nodeagent_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// A probe that could not be asked says nothing of the container, and one that
// takes too long has failed.
func TestUndecidedProbes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var hangs atomic.Bool
		r.probe = func(ctx context.Context, _ string, _ *corev1.Probe) error {
			if hangs.Load() {
				<-ctx.Done()
			}
			return fmt.Errorf("the runtime is away: %w", schema.ErrUnavailable)
		}
		p := newPod("web")
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 2, TimeoutSeconds: 1}
		r.begin(true)
		r.assign(p)
		r.after(time.Minute)
		if c := r.only(p.UID); c.Attempt != 0 {
			t.Fatalf("restarted by a probe that could not be asked: %+v", c)
		}
		hangs.Store(true)
		r.after(5 * time.Second)
		if cs := r.containers(p.UID); cs[len(cs)-1].Attempt == 0 {
			t.Fatalf("a probe that hangs did not restart it: %+v", cs)
		}
	})
}
