package nodeagent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/event"
)

const (
	eventComponent = "nodeagent"
	eventGather    = 50 * time.Millisecond // that an Event waits for others to go with it
	eventsAtOnce   = 200                   // in one message
	eventsMost     = 1000                  // that wait to be sent; the newest stay
	// eventsKeep is how old news may become while the gateway is away.
	eventsKeep = 15 * time.Minute
)

// A teller brings news to the gateway. News is not state: what cannot be sent in
// time is dropped and counted, oldest first. It holds one Event a name, the
// newest count.
type teller struct {
	node schema.NodeName
	log  *slog.Logger
	wake chan struct{} // one token: there is something to send

	mu       sync.Mutex
	recorder *event.Recorder
	seq      uint64
	waiting  map[string]*telling // by the Event's namespace and name
	dropped  uint64
}

// telling is one Event that waits to be sent.
type telling struct {
	key   string
	event corev1.Event
	seq   uint64
}

func newTeller(node schema.NodeName, log *slog.Logger) *teller {
	return &teller{
		node: node, log: log, wake: make(chan struct{}, 1),
		recorder: event.NewRecorder(eventComponent, string(node)), waiting: map[string]*telling{},
	}
}

// tell takes one piece of news. It does not wait.
func (t *teller) tell(n event.News) {
	now := time.Now()
	t.mu.Lock()
	e, ok := t.recorder.Record(n, now)
	if ok {
		t.seq++
		key := e.Namespace + "/" + e.Name
		t.waiting[key] = &telling{key, e, t.seq}
		if len(t.waiting) > eventsMost {
			t.drop(t.inOrder()[:1])
		}
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// drop forgets what cannot be told any more. t.mu is held.
func (t *teller) drop(old []*telling) {
	for _, x := range old {
		delete(t.waiting, x.key)
		t.dropped++
	}
}

// inOrder lists what waits, oldest first. t.mu is held.
func (t *teller) inOrder() []*telling {
	all := make([]*telling, 0, len(t.waiting))
	for _, x := range t.waiting {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b *telling) int { return int(int64(a.seq - b.seq)) })
	return all
}

// batch is the oldest news that is still worth telling.
func (t *teller) batch(now time.Time) []*telling {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.inOrder()
	fresh := slices.IndexFunc(all, func(x *telling) bool { return now.Sub(x.event.LastTimestamp.Time) < eventsKeep })
	if fresh < 0 {
		fresh = len(all)
	}
	t.drop(all[:fresh])
	if t.dropped > 0 {
		t.log.Warn("events dropped: the gateway was away for too long, or there were too many", "events", t.dropped)
		t.dropped = 0
	}
	return all[fresh:min(fresh+eventsAtOnce, len(all))]
}

// sent forgets what was told, unless it happened again meanwhile.
func (t *teller) sent(batch []*telling) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range batch {
		if now := t.waiting[x.key]; now != nil && now.seq == x.seq {
			delete(t.waiting, x.key)
		}
	}
}

// run sends until ctx is done.
func (t *teller) run(ctx context.Context, to ControlPlane) error {
	retry := reportRetry
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.wake:
		}
		wait(ctx, eventGather)
		for batch := t.batch(time.Now()); len(batch) > 0 && ctx.Err() == nil; batch = t.batch(time.Now()) {
			err := t.send(ctx, to, batch)
			switch {
			case err == nil:
				retry = reportRetry
			case errors.Is(err, schema.ErrRefused):
				// The gateway has taken the others: a pod may have gone meanwhile.
				t.log.Debug("gateway refuses an event", "err", err)
			default:
				t.log.Debug("cannot tell events", "events", len(batch), "retry", retry, "err", err)
				pause(ctx, retry)
				retry = min(2*retry, reportRetryMax)
				continue
			}
			t.sent(batch)
		}
	}
}

func (t *teller) send(ctx context.Context, to ControlPlane, batch []*telling) error {
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	events := make([]corev1.Event, len(batch))
	for i, x := range batch {
		events[i] = x.event
	}
	return to.ReportEvents(ctx, events)
}

// wait waits for d, or until ctx is done.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// tell tells of the worker's pod, or of one of its containers. It may be called
// from any goroutine.
func (w *worker) tell(container, typ, reason, message string) {
	if w.unrecorded() {
		return // nobody knows of it
	}
	want := w.wanted()
	w.a.news.tell(event.News{
		About: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: want.Namespace, Name: want.Name, UID: want.UID,
			FieldPath: fieldPath(want, container),
		},
		Type: typ, Reason: reason, Message: message,
	})
}

func (w *worker) warn(container, reason, message string) {
	w.tell(container, corev1.EventTypeWarning, reason, message)
}

func (w *worker) say(container, reason, message string) {
	w.tell(container, corev1.EventTypeNormal, reason, message)
}

// fieldPath is where a container stands in the pod; "" for the pod itself.
func fieldPath(p *corev1.Pod, container string) string {
	named := func(c corev1.Container) bool { return c.Name == container }
	switch {
	case slices.ContainsFunc(p.Spec.Containers, named):
		return "spec.containers{" + container + "}"
	case slices.ContainsFunc(p.Spec.InitContainers, named):
		return "spec.initContainers{" + container + "}"
	}
	return ""
}

// tellNode tells of the node itself.
func (a *agent) tellNode(typ, reason, message string) {
	a.news.tell(event.News{
		About: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: string(a.cfg.Node), UID: types.UID(a.cfg.Node)},
		Type:  typ, Reason: reason, Message: message,
	})
}
