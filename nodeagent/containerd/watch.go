package containerd

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/events"
	coreevents "github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
	"k8s.io/apimachinery/pkg/types"
)

const (
	resubscribeFirst = 10 * time.Millisecond
	resubscribeMost  = time.Second
	// markTopic carries the event by which a subscription knows that it began.
	markTopic = "/pawl/subscribed"
)

// Watch tells of changes by one subscription for the node. An event is only a
// reason to look: what there is is asked for anew.
func (r *Runtime) Watch(ctx context.Context, changed func(types.UID)) error {
	pause := resubscribeFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := r.subscribe(ctx, changed)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > resubscribeMost {
			pause = resubscribeFirst
		}
		r.log.Debug("containerd's events broke off", "err", err, "again in", pause)
		wait(ctx, pause)
		pause = min(2*pause, resubscribeMost)
	}
	return ctx.Err()
}

// subscribe passes events on until the subscription breaks.
func (r *Runtime) subscribe(ctx context.Context, changed func(types.UID)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	service := r.client.EventService()
	mark := fmt.Sprintf("%s-%d", r.opts.Instance, time.Now().UnixNano())
	var filters []string
	for _, topic := range []string{"/tasks/start", "/tasks/exit", "/tasks/oom", markTopic} {
		filters = append(filters, fmt.Sprintf("namespace==%s,topic==%q", namespace, topic))
	}
	envelopes, errs := service.Subscribe(ctx, filters...)
	// Opening a subscription is not answered. It has begun when it brings our own
	// event, and what was before it may have been missed.
	marks := time.NewTicker(5 * time.Millisecond)
	defer marks.Stop()
	begun := false
	for {
		select {
		case e, ok := <-envelopes:
			if !ok {
				return <-errs
			}
			if e.Topic == markTopic {
				if !begun && isMark(e, mark) {
					begun = true
					marks.Stop()
					changed("")
				}
				continue
			}
			r.event(e, changed)
		case err := <-errs:
			return err
		case <-marks.C:
			if err := service.Publish(ctx, markTopic, &events.ContainerCreate{ID: mark}); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func isMark(e *coreevents.Envelope, mark string) bool {
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		return false
	}
	c, ok := v.(*events.ContainerCreate)
	return ok && c.ID == mark
}

func (r *Runtime) event(e *coreevents.Envelope, changed func(types.UID)) {
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		return // of a containerd newer than this: the topics we asked for have not changed in years
	}
	var id string
	switch v := v.(type) {
	case *events.TaskStart:
		id = v.ContainerID
	case *events.TaskExit:
		if v.ID != v.ContainerID {
			return // a command that was executed in the container
		}
		id = v.ContainerID
	case *events.TaskOOM:
		id = v.ContainerID
	}
	r.mu.Lock()
	rec := r.records[id]
	r.mu.Unlock()
	if rec == nil {
		return // not ours
	}
	changed(rec.uid)
}
