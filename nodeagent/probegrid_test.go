package nodeagent_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pawl-project/pawl/nodeagent"
)

// Probes come together, and from the second on exactly after their periods,
// however late the machine, or early its clock, is by a little.
func TestProbesComeTogether(t *testing.T) {
	const grid = 250 * time.Millisecond
	for range 1000 {
		period := time.Duration(1+rand.IntN(10)) * time.Second
		now := time.Unix(0, rand.Int64N(1<<60))
		gap := nodeagent.ProbePause(now, period)
		if gap > period+grid/10 || gap <= period-grid {
			t.Fatalf("after %v, of %v", gap, period)
		}
		next := now.Add(gap)
		if !next.Equal(next.Truncate(grid)) {
			t.Fatalf("%v is by itself", next)
		}
		late := time.Duration(rand.Int64N(int64(grid))) - grid/10
		if again := late + nodeagent.ProbePause(next.Add(late), period); again != period {
			t.Fatalf("asked %v late, again after %v, of %v", late, again, period)
		}
	}
}
