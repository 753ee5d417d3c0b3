package containerd

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
)

// The second is what containerd 1.6 said when it was killed while a task started.
func TestTasksThatRunAreKnownByTheErrorOfTheirDeletion(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("task must be stopped: %w", errdefs.ErrFailedPrecondition), true},
		{fmt.Errorf("failed to delete task: cannot delete container x that is not stopped: running: %w", errdefs.ErrUnknown), true},
		{errors.New("ttrpc: closed"), false},
	} {
		if got := notStopped(c.err); got != c.want {
			t.Errorf("%v: %t, want %t", c.err, got, c.want)
		}
	}
}
