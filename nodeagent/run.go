package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Run keeps the node's pods as assigned until ctx is done. It leaves the
// containers running when it returns. The error is nil when ctx ended it.
func Run(ctx context.Context, cfg Config) error {
	a, err := newAgent(cfg)
	if err != nil {
		return fmt.Errorf("node agent: %w", err)
	}
	return a.run(ctx)
}

func (a *agent) run(parent context.Context) error {
	g, ctx := errgroup.WithContext(parent)
	a.ctx = ctx
	if err := a.adopt(); err != nil {
		return err
	}
	a.tellNode(corev1.EventTypeNormal, "Starting", "Starting nodeagent.")
	g.Go(func() error { return a.cfg.Runtime.Watch(ctx, a.changed) })
	g.Go(func() error { return a.collectImages(ctx) })
	g.Go(func() error { return a.watchStorage(ctx) })
	if a.cfg.Link != nil {
		g.Go(func() error { return a.cfg.Link.Run(ctx, a) })
		g.Go(func() error { return a.reports.run(ctx, a.cfg.Link) })
		g.Go(func() error { return a.news.run(ctx, a.cfg.Link) })
		g.Go(func() error { return a.heartbeat(ctx) })
		g.Go(func() error { return a.meterUsage(ctx) })
		g.Go(func() error { return a.refreshTokens(ctx) })
		g.Go(func() error { return a.sweepRemnants(ctx) })
	}
	err := g.Wait()
	a.workers.Wait()
	if parent.Err() != nil && errors.Is(err, parent.Err()) {
		return nil
	}
	return err
}

// changed wakes the worker of a pod, or all of them for "".
func (a *agent) changed(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if uid != "" {
		if w := a.pods[uid]; w != nil {
			w.wakeUp()
		}
		return
	}
	for _, w := range a.pods {
		w.post((*worker).hasten)
	}
}

// pause waits for d, stretched by up to a fifth, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(jittered(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func jittered(d time.Duration) time.Duration {
	return d + time.Duration(rand.Float64()*float64(d)/5)
}
