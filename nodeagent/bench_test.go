package nodeagent_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// counting is a control plane that waits for pods to run, and to be gone.
type counting struct {
	h       chan nodeagent.Handler
	mu      sync.Mutex
	running map[types.UID]bool
	gone    map[types.UID]bool
	changed chan struct{}
}

func (c *counting) Run(ctx context.Context, h nodeagent.Handler) error {
	h.Whole(nodeagent.Assigned{})
	c.h <- h
	<-ctx.Done()
	return ctx.Err()
}

func (c *counting) ReportPods(_ context.Context, reports []schema.PodReport) error {
	c.mu.Lock()
	for _, r := range reports {
		if r.Gone {
			c.gone[r.Pod.UID] = true
		} else if r.Pod.Status.Phase == corev1.PodRunning {
			c.running[r.Pod.UID] = true
		}
	}
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
	return nil
}

func (c *counting) ReportNode(context.Context, *corev1.Node) error { return nil }

func (c *counting) ReportEvents(context.Context, []corev1.Event) error { return nil }

func (c *counting) wait(set map[types.UID]bool, n int) {
	for {
		c.mu.Lock()
		done := len(set) >= n
		c.mu.Unlock()
		if done {
			return
		}
		<-c.changed
	}
}

// BenchmarkPods is what the agent itself costs: pods assigned → reported running
// → deleted → reported gone, on a runtime that takes no time and a real disk.
func BenchmarkPods(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			ctl := &counting{h: make(chan nodeagent.Handler, 1), running: map[types.UID]bool{}, gone: map[types.UID]bool{}, changed: make(chan struct{}, 1)}
			h := &handle{world: newWorld(), end: cancel}
			done := make(chan error, 1)
			dir := b.TempDir()
			go func() {
				done <- nodeagent.Run(ctx, nodeagent.Config{
					Node: "n1", DataDir: dir, RunDir: dir, Runtime: h, Volumes: heldVolumes{h}, Link: ctl, Logger: slog.New(slog.DiscardHandler),
				})
			}()
			agent := <-ctl.h
			total := 0
			var up, down time.Duration
			for b.Loop() {
				begin := time.Now()
				var s nodeagent.Assigned
				for i := range n {
					p := newPod(fmt.Sprintf("p%d-%d", total, i))
					s.Assignments = append(s.Assignments, schema.Assignment{Node: "n1", Pod: *p})
				}
				agent.Delta(s, nil)
				total += n
				ctl.wait(ctl.running, total)
				middle := time.Now()
				var remove []schema.ObjectKey
				for i := range s.Assignments {
					p := &s.Assignments[i].Pod
					remove = append(remove, schema.ObjectKey{Kind: schema.Pods, Namespace: p.Namespace, Name: p.Name})
				}
				agent.Delta(nodeagent.Assigned{}, remove)
				ctl.wait(ctl.gone, total)
				up, down = up+middle.Sub(begin), down+time.Since(middle)
			}
			b.ReportMetric(float64(up.Microseconds())/1000/float64(b.N), "ms/up")
			b.ReportMetric(float64(down.Microseconds())/1000/float64(b.N), "ms/down")
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
