package nodeagent

import (
	"context"
	"errors"
	"log/slog"
	"sort"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

const (
	reportBatch    = 64                     // reports in one message
	reportGather   = time.Millisecond       // that a report waits for others to go with it
	reportRetry    = 100 * time.Millisecond // after the first failure
	reportRetryMax = 15 * time.Second
	reportLimit    = 20 * time.Second // for one message to be acked
)

// A reporter brings pods' statuses to the gateway. The newest of each pod wins:
// an older one that was not sent yet is never sent. It holds one report a pod,
// so that it is bounded by the node's pods however long the gateway is away.
type reporter struct {
	node  schema.NodeName
	log   *slog.Logger
	wake  chan struct{}   // one token: there is something to send
	again chan struct{}   // one token: the gateway is back
	acked func(types.UID) // told of each pod whose end is stored; called without mu

	mu    sync.Mutex
	seq   uint64
	pods  map[types.UID]*report
	signs map[types.UID]string // signatures of what was assigned
	dirty map[types.UID]bool
	owed  map[types.UID]bool // to be told before the node is; nil: it has not synced yet
	paid  chan struct{}      // one token: nothing is owed any more
}

// A report is the newest word on one pod.
type report struct {
	pod  *corev1.Pod
	gone bool
	seq  uint64 // of this word; reports go out in this order
}

func newReporter(node schema.NodeName, log *slog.Logger) *reporter {
	return &reporter{
		node: node, log: log, wake: make(chan struct{}, 1), again: make(chan struct{}, 1), acked: func(types.UID) {},
		pods: map[types.UID]*report{}, signs: map[types.UID]string{}, dirty: map[types.UID]bool{}, paid: make(chan struct{}, 1),
	}
}

// sign keeps the signature of a pod's assignment, which goes with every word on it.
func (r *reporter) sign(uid types.UID, signature string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signs[uid] = signature
}

func (r *reporter) signature(uid types.UID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.signs[uid]
}

// put makes s the newest word on the pod. p is shared and not changed.
func (r *reporter) put(p *corev1.Pod, s corev1.PodStatus, gone bool) {
	told := *p
	told.Status = s
	r.mu.Lock()
	r.seq++
	r.pods[p.UID] = &report{pod: &told, gone: gone, seq: r.seq}
	r.dirty[p.UID] = true
	r.mu.Unlock()
	r.wakeUp()
}

// all has everything reported again, and at once: the gateway is back, and the
// store may have been lost. The pods the node holds are owed: until each was
// told of, the node itself is not reported, so that nobody places pods by a
// picture that lacks them.
func (r *reporter) all(held []types.UID) {
	r.mu.Lock()
	r.owed = map[types.UID]bool{}
	for _, uid := range held {
		r.owed[uid] = true
	}
	r.pay()
	for uid := range r.pods {
		r.dirty[uid] = true
	}
	r.mu.Unlock()
	select {
	case r.again <- struct{}{}:
	default:
	}
	r.wakeUp()
}

// drop forgets a pod.
func (r *reporter) drop(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, uid)
	delete(r.signs, uid)
	delete(r.dirty, uid)
	r.pay(uid)
}

// pay notes that the gateway knows of pods. r.mu is held.
func (r *reporter) pay(uids ...types.UID) {
	for _, uid := range uids {
		delete(r.owed, uid)
	}
	if r.owed != nil && len(r.owed) == 0 {
		select {
		case r.paid <- struct{}{}:
		default:
		}
	}
}

// allTold waits until nothing is owed, but no longer than limit: one pod that
// cannot be looked at must not hide the node. It is for one goroutine.
func (r *reporter) allTold(ctx context.Context, limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	for {
		r.mu.Lock()
		told := r.owed != nil && len(r.owed) == 0
		r.mu.Unlock()
		if told {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-r.paid:
		}
	}
}

// settled says whether the newest word on the pod is stored.
func (r *reporter) settled(uid types.UID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.dirty[uid]
}

func (r *reporter) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run sends until ctx is done, one message at a time: what changes meanwhile
// goes with the next.
func (r *reporter) run(ctx context.Context, to ControlPlane) error {
	retry := reportRetry
	size := reportBatch
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		}
		r.gather(ctx)
		for batch := r.batch(size); len(batch) > 0 && ctx.Err() == nil; batch = r.batch(size) {
			err := r.send(ctx, to, batch)
			switch {
			case err == nil:
				retry, size = reportRetry, reportBatch
			case errors.Is(err, schema.ErrRefused) && len(batch) == 1:
				// Only a bug on either side gets here; it must not hold up the other pods.
				r.log.Error("gateway refuses a pod's report; not repeating it until the pod changes", "pod", keyOf(batch[0].pod), "err", err)
				r.settle(batch)
			case errors.Is(err, schema.ErrRefused):
				size = 1 // find the one that is refused
			default:
				if ctx.Err() == nil {
					r.log.Warn("cannot report pods", "pods", len(batch), "retry", retry, "err", err)
				}
				if r.pause(ctx, retry) {
					retry = reportRetry
				} else {
					retry = min(2*retry, reportRetryMax)
				}
			}
		}
	}
}

// pause waits for d, or until the gateway is back (true) or ctx is done.
func (r *reporter) pause(ctx context.Context, d time.Duration) (back bool) {
	t := time.NewTimer(jittered(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-r.again:
		return true
	}
	return false
}

// gather waits for reports that are about to come.
func (r *reporter) gather(ctx context.Context) {
	t := time.NewTimer(reportGather)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// batch is the oldest words that are not stored.
func (r *reporter) batch(size int) (batch []*report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for uid := range r.dirty {
		batch = append(batch, r.pods[uid])
	}
	sort.Slice(batch, func(i, j int) bool { return batch[i].seq < batch[j].seq })
	return batch[:min(len(batch), size)]
}

func (r *reporter) send(ctx context.Context, to ControlPlane, batch []*report) error {
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	reports := make([]schema.PodReport, len(batch))
	for i, x := range batch {
		reports[i] = schema.PodReport{Node: r.node, Pod: *x.pod, Gone: x.gone, Signature: r.signature(x.pod.UID)}
	}
	if err := to.ReportPods(ctx, reports); err != nil {
		return err
	}
	r.settle(batch)
	return nil
}

// settle marks words as stored, unless newer ones came.
func (r *reporter) settle(batch []*report) {
	var ended []types.UID
	r.mu.Lock()
	for _, x := range batch {
		uid := x.pod.UID
		r.pay(uid)
		if now := r.pods[uid]; now == nil || now.seq != x.seq {
			continue
		}
		delete(r.dirty, uid)
		if x.gone {
			ended = append(ended, uid)
		}
	}
	r.mu.Unlock()
	for _, uid := range ended {
		r.acked(uid)
	}
}
