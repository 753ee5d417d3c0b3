package nodeagent_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pawl-project/pawl/nodeagent"
)

// Probes come together: none later than its period, and from the second on
// exactly after it, however late the machine is by a little.
func TestProbesComeTogether(t *testing.T) {
	const grid = 250 * time.Millisecond
	for range 1000 {
		period := time.Duration(1+rand.IntN(10)) * time.Second
		now := time.Unix(0, rand.Int64N(1<<60))
		gap := nodeagent.ProbePause(now, period)
		if gap > period || gap <= period-grid {
			t.Fatalf("after %v, of %v", gap, period)
		}
		next := now.Add(gap)
		if !next.Equal(next.Truncate(grid)) {
			t.Fatalf("%v is by itself", next)
		}
		late := time.Duration(rand.Int64N(int64(grid)))
		if again := late + nodeagent.ProbePause(next.Add(late), period); again != period {
			t.Fatalf("asked %v late, again after %v, of %v", late, again, period)
		}
	}
}
