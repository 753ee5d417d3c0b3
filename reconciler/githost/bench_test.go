package githost

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// BenchmarkPush measures a one-file commit: from the start of the git push
// process to Pushed, and to the end of the process.
func BenchmarkPush(b *testing.B) {
	for _, files := range []int{1, 1000, 10000} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) {
			pushed := make(chan time.Time, 1)
			w := newWorld(b, func(o *Options) {
				o.Check = func(context.Context, schema.Commit) ([]schema.Fault, error) { return nil, nil }
				o.Pushed = func(schema.Commit) { pushed <- time.Now() }
			})
			for i := range files {
				path := filepath.Join(w.work, fmt.Sprintf("d%d/f%d.yaml", i%20, i))
				os.MkdirAll(filepath.Dir(path), 0o755)
				os.WriteFile(path, fmt.Appendf(nil, "file: %d\n", i), 0o644)
			}
			w.commit(w.work, "web.yaml", "good")
			w.git(w.work, "push", "-q", "origin", "main")
			<-pushed
			var toPushed, toEnd []time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				w.commit(w.work, "web.yaml", fmt.Sprint("good ", i))
				b.StartTimer()
				start := time.Now()
				w.git(w.work, "push", "-q", "origin", "main")
				toEnd = append(toEnd, time.Since(start))
				toPushed = append(toPushed, (<-pushed).Sub(start))
			}
			report(b, "pushed", toPushed)
			report(b, "end", toEnd)
		})
	}
}

func report(b *testing.B, name string, all []time.Duration) {
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-p50-"+name)
	b.ReportMetric(float64(all[len(all)*9/10].Microseconds())/1000, "ms-p90-"+name)
}
