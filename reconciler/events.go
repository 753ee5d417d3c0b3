package reconciler

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/reconciler/plan"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/event"
)

const (
	// eventBacklog bounds the steps whose news waits to be published.
	eventBacklog = 256
	// eventBatch is how many Events are handed to the store at once.
	eventBatch = 1000
	// eventComponent is who speaks.
	eventComponent = "reconciler"
)

// bulletin is what one step has to tell.
type bulletin struct {
	news []plan.News
	at   time.Time
}

// tell makes news of changes. Events are news, not state: when the publisher
// cannot keep up they are dropped, and the state in the store is whole without them.
func (l *loop) tell(changes []plan.Change, now time.Time) {
	var news []plan.News
	for _, c := range changes {
		news = append(news, c.News()...)
	}
	l.announce(news, now)
}

func (l *loop) announce(news []plan.News, now time.Time) {
	if len(news) == 0 {
		return
	}
	for _, n := range news {
		l.log.Debug("change", "about", n.About.String(), "event", n.Event, "reason", n.Message)
	}
	select {
	case l.events <- bulletin{news, now}:
	default:
		l.log.Warn("events dropped: the store does not take them fast enough", "events", len(news))
	}
}

// publish hands news to the store until ctx is done. It owns the recorder.
func (l *loop) publish(ctx context.Context) error {
	recorder := event.NewRecorder(eventComponent, "")
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-l.events:
			for events := range batches(recorder, b) {
				if err := l.store.Publish(ctx, events); err != nil && ctx.Err() == nil {
					l.log.Warn("events lost", "events", len(events), "error", err)
				}
			}
		}
	}
}

// batches makes Events of news, as many at a time as the store takes at once.
func batches(recorder *event.Recorder, b bulletin) func(yield func([]corev1.Event) bool) {
	return func(yield func([]corev1.Event) bool) {
		var events []corev1.Event
		for _, n := range b.news {
			about := event.Refer(n.About)
			if n.About.Kind == schema.Pods { // a pod's uid does not follow from its name
				about.UID = n.UID
			}
			e, ok := recorder.Record(event.News{About: about, Type: n.Type, Reason: n.Event, Message: n.Message}, b.at)
			if !ok {
				continue
			}
			if events = append(events, e); len(events) == eventBatch {
				if !yield(events) {
					return
				}
				events = nil
			}
		}
		if len(events) > 0 {
			yield(events)
		}
	}
}

// tellRevision tells what became of a commit, about the commit.
func (l *loop) tellRevision(r *schema.RevisionRecord, now time.Time) {
	n := plan.News{About: schema.ObjectKey{Kind: schema.Revisions, Name: r.Commit}, Type: corev1.EventTypeNormal}
	commit := fmt.Sprintf("commit %s by %s (%s)", short(r.Commit), r.Author, r.Subject)
	switch {
	case r.Result == schema.RevisionRefused:
		n.Type, n.Event = corev1.EventTypeWarning, "RevisionRefused"
		n.Message = "Refused " + commit + ", the last good revision stands"
		if len(r.Faults) > 0 {
			n.Message = fmt.Sprintf("Refused %s: %s", commit, r.Faults[0])
		}
		if more := len(r.Faults) - 1; more > 0 {
			n.Message += fmt.Sprintf(" (and %d more)", more)
		}
	case r.Settled != nil:
		n.Event = "RevisionSettled"
		n.Message = fmt.Sprintf("Everything that %s asks for is so, %s after it came", commit, r.Settled.Sub(r.Seen).Round(time.Millisecond))
	default:
		n.Event = "RevisionApplied"
		n.Message = fmt.Sprintf("Applied %s: %s created, %s changed, %s removed", commit, counted(r.Created), counted(r.Changed), counted(r.Removed))
	}
	l.announce([]plan.News{n}, now)
}

// counted is how many objects a record names, as far as it names them.
func counted(names []string) string {
	if len(names) == namedChanges {
		return fmt.Sprintf("%d or more", namedChanges)
	}
	return fmt.Sprint(len(names))
}
