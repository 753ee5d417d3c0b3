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
		now := nodeagent.ProbesBegan.Add(time.Duration(rand.Int64N(int64(time.Hour))))
		next := nodeagent.NextProbe(now, period)
		if gap := next.Sub(now); gap > period || gap <= period-grid {
			t.Fatalf("after %v, of %v", gap, period)
		}
		if next.Sub(nodeagent.ProbesBegan)%grid != 0 {
			t.Fatalf("%v is by itself", next.Sub(nodeagent.ProbesBegan))
		}
		late := time.Duration(rand.Int64N(int64(grid)))
		if again := nodeagent.NextProbe(next.Add(late), period); again.Sub(next) != period {
			t.Fatalf("asked %v late, again after %v, of %v", late, again.Sub(next), period)
		}
	}
}
