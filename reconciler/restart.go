package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
)

const (
	// restartsMost bounds the orders that wait for the loop.
	restartsMost = 1000
	// restartTries is how often an order is decided anew when its pod changed
	// while it was written.
	restartTries = 5
)

// A restart is an order to end a pod, which is made again.
type restart struct {
	ctx   context.Context // of who waits
	pod   schema.PodKey
	uid   types.UID
	grace *int64 // seconds; nil: the pod's own
	why   string
	done  chan restarted // of one
}

// restarted is how an order was carried out.
type restarted struct {
	pod *corev1.Pod
	err error
}

// restarts hands orders to the loop, which is the only one that writes. The zero
// value is ready.
type restarts struct {
	mu    sync.Mutex
	queue []*restart
}

// RestartPod ends a pod, gracefully within grace seconds (nil: the pod's own
// period), and returns it as it ends. A pod of a ReplicaSet is replaced by
// another; one that stands in the repository is made again under its name once
// it is gone. When it returns without an error the order is stored and survives
// whatever happens to the daemon. The error wraps schema.ErrNotFound when there
// is no such pod, ErrConflict when uid is not "" and the pod of that name has
// another, ErrUnavailable when the store could not be asked; then the order may
// have been stored.
func (l *loop) RestartPod(ctx context.Context, p schema.PodKey, uid types.UID, grace *int64) (*corev1.Pod, error) {
	why := "it was deleted through the API"
	if u, ok := access.UserFrom(ctx); ok && u.Name != "" {
		why += " by " + u.Name
	}
	r := &restart{ctx: ctx, pod: p, uid: uid, grace: grace, why: why, done: make(chan restarted, 1)}
	if err := l.restarts.put(r); err != nil {
		return nil, err
	}
	l.intake.wakeUp()
	select {
	case d := <-r.done:
		return d.pod, d.err
	case <-ctx.Done():
		return nil, fmt.Errorf("restart pod %s: %w: %w", p, context.Cause(ctx), schema.ErrUnavailable)
	}
}

func (q *restarts) put(r *restart) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) >= restartsMost {
		return fmt.Errorf("restart pod %s: %d restarts wait already: %w", r.pod, len(q.queue), schema.ErrUnavailable)
	}
	q.queue = append(q.queue, r)
	return nil
}

func (q *restarts) take() []*restart {
	q.mu.Lock()
	defer q.mu.Unlock()
	queue := q.queue
	q.queue = nil
	return queue
}

// obey carries out the orders that wait. The planner was fed. What the store
// does not take fails the order and nothing else.
func (l *loop) obey(ctx context.Context, c changes, now time.Time) {
	for _, r := range l.restarts.take() {
		if r.ctx.Err() != nil {
			continue // nobody waits for it any more
		}
		pod, err := l.restart(ctx, c, r, now)
		r.done <- restarted{pod, err}
	}
}

func (l *loop) restart(ctx context.Context, c changes, r *restart, now time.Time) (*corev1.Pod, error) {
	for try := 1; ; try++ {
		changes, pod, err := l.planner.Restart(r.pod, r.uid, r.grace, r.why, now)
		if err != nil {
			return nil, err
		}
		err = l.commit(ctx, changes)
		l.feed(c)
		switch {
		case err == nil:
			l.tell(changes, now)
			l.log.Info("pod restarted by hand", "pod", r.pod.String(), "uid", string(pod.UID), "reason", r.why)
			return pod, nil
		case !errors.Is(err, schema.ErrConflict) || try == restartTries:
			return nil, fmt.Errorf("restart pod %s: %w", r.pod, err)
		}
		if err := l.awaitNews(ctx, r.ctx, c); err != nil {
			return nil, fmt.Errorf("restart pod %s: %w", r.pod, err)
		}
	}
}

// awaitNews lets the views catch up with whoever wrote first.
func (l *loop) awaitNews(ctx, waiting context.Context, c changes) error {
	t := time.NewTimer(shortestPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", context.Cause(ctx), schema.ErrUnavailable)
	case <-waiting.Done():
		return fmt.Errorf("%w: %w", context.Cause(waiting), schema.ErrUnavailable)
	case <-t.C:
	}
	l.feed(c)
	return nil
}
