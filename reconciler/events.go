package reconciler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/plan"
	"github.com/pawl-project/pawl/schema"
)

// eventBacklog bounds the batches of events that wait to be published.
const eventBacklog = 256

// tell makes Events of changes. Events are news, not state: when the publisher
// cannot keep up they are dropped, and the state in the store is whole without them.
func (l *loop) tell(changes []plan.Change, now time.Time) {
	var events []corev1.Event
	for _, c := range changes {
		if c.Type == "" {
			continue
		}
		events = append(events, newEvent(c, now))
		l.log.Debug("change", "about", c.About.String(), "event", c.Event, "reason", c.Message)
	}
	if len(events) == 0 {
		return
	}
	select {
	case l.events <- events:
	default:
		l.log.Warn("events dropped: the store does not take them fast enough", "events", len(events))
	}
}

// publish hands events to the store until ctx is done.
func (l *loop) publish(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case events := <-l.events:
			if err := l.store.Publish(ctx, events); err != nil && ctx.Err() == nil {
				l.log.Warn("events lost", "events", len(events), "error", err)
			}
		}
	}
}

func newEvent(c plan.Change, now time.Time) corev1.Event {
	namespace := c.About.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	involved := corev1.ObjectReference{Namespace: c.About.Namespace, Name: c.About.Name}
	if c.About.Kind != schema.Pods { // a pod's uid does not follow from its name
		involved.UID = schema.UIDOf(c.About)
	}
	if i, ok := schema.LookupKind(c.About.Kind); ok {
		involved.APIVersion, involved.Kind = i.GVK.ToAPIVersionAndKind()
	}
	sum := sha256.Sum256([]byte(c.About.String() + c.Event + c.Message + now.Format(time.RFC3339Nano)))
	at := metav1.NewTime(now)
	return corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: c.About.Name + "." + hex.EncodeToString(sum[:8]), CreationTimestamp: at},
		InvolvedObject: involved,
		Reason:         c.Event,
		Message:        c.Message,
		Type:           c.Type,
		FirstTimestamp: at,
		LastTimestamp:  at,
		Count:          1,
		Source:         corev1.EventSource{Component: "reconciler"},
	}
}
