package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/event"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// maxEvents bounds the Events in one request.
	maxEvents = 1000
	// nodeEvents and nodeEventsBurst bound what of one node is stored, a second
	// and at once: a node that lies must not push all others' news out of the
	// stream. An agent that starts all its pods at a time stays below.
	nodeEvents      = 2
	nodeEventsBurst = 2000
	// eventQueue is how many requests' Events may wait for the store.
	eventQueue = 64
	// eventComponent is who speaks when a node does.
	eventComponent = "nodeagent"
)

// takeEvents takes a node's news in. It is answered at once, and what cannot be
// stored soon is dropped and counted: news is not worth to be asked for again.
func (g *Gateway) takeEvents(r kv.Request) {
	told, err := kv.DecodeEvents(r.Data)
	if err == nil && len(told) > maxEvents {
		err = fmt.Errorf("%d events in one request, at most %d: %w", len(told), maxEvents, schema.ErrRefused)
	}
	if err != nil {
		g.refuse(r, "event cannot be read", err)
		return
	}
	if !g.whole() || !g.o.Actual.Whole() {
		g.answer(r, kv.AnswerError(fmt.Errorf("the store is not read whole yet: %w", schema.ErrUnavailable)))
		return
	}
	now := time.Now()
	n := g.node(r.Node)
	n.heard = now
	var taken []corev1.Event
	var refused error
	for i := range told {
		e, err := g.judgeEvent(r.Node, &told[i], now)
		switch {
		case err != nil:
			refused = err
			g.faults.count(r.Node, "event is not this node's to tell")
		case !n.events.AllowN(now, 1):
			g.faults.count(r.Node, "too many events")
		default:
			taken = append(taken, e)
		}
	}
	if len(taken) > 0 {
		select {
		case g.events <- taken:
		default:
			g.faults.count(r.Node, "events dropped")
		}
	}
	if refused != nil {
		g.answer(r, kv.AnswerError(refused))
		return
	}
	g.answer(r, kv.Answer{})
}

// judgeEvent makes the Event that is stored of a node's word: about a pod that
// the node has or had last, or about the node itself. Nothing of it is the
// node's that says who speaks, and its name is made anew, so that no node can
// overwrite what another, or the reconciler, has said. The error wraps
// schema.ErrRefused.
func (g *Gateway) judgeEvent(n schema.NodeName, told *corev1.Event, now time.Time) (corev1.Event, error) {
	if err := event.Check(told, now); err != nil {
		return corev1.Event{}, err
	}
	suffix, err := event.Suffix(told)
	if err != nil {
		return corev1.Event{}, err
	}
	about := corev1.ObjectReference{
		Kind: told.InvolvedObject.Kind, APIVersion: "v1", Name: told.InvolvedObject.Name, Namespace: told.InvolvedObject.Namespace,
		UID: told.InvolvedObject.UID, FieldPath: told.InvolvedObject.FieldPath,
	}
	namespace := about.Namespace
	switch about.Kind {
	case "Pod":
		if !g.mayTell(n, &about) {
			return corev1.Event{}, fmt.Errorf("event %s about pod %.80q in namespace %.80q, which node %s does not have: %w", told.Reason, about.Name, about.Namespace, n, schema.ErrRefused)
		}
	case "Node":
		if about.Name != string(n) || about.Namespace != "" || about.FieldPath != "" {
			return corev1.Event{}, fmt.Errorf("event %s about node %.80q: %w", told.Reason, about.Name, schema.ErrRefused)
		}
		about.UID = types.UID(n) // by which kubectl looks for events of a node
		namespace = metav1.NamespaceDefault
	default:
		return corev1.Event{}, fmt.Errorf("event %s about a %.80q: %w", told.Reason, about.Kind, schema.ErrRefused)
	}
	first, last := told.FirstTimestamp, told.LastTimestamp
	if last.After(now) { // its clock is ahead
		last = metav1.NewTime(now)
		if first.After(now) {
			first = last
		}
	}
	sum := sha256.Sum256([]byte(eventComponent + "\x00" + string(n) + "\x00" + string(about.UID) + "\x00" + suffix))
	name := event.Name(about.Name, hex.EncodeToString(sum[:8]))
	return corev1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: event.UID(namespace, name), CreationTimestamp: first,
		},
		InvolvedObject: about,
		Type:           told.Type, Reason: told.Reason, Message: told.Message,
		FirstTimestamp: first, LastTimestamp: last, Count: told.Count,
		Source:              corev1.EventSource{Component: eventComponent, Host: string(n)},
		ReportingController: eventComponent, ReportingInstance: string(n),
	}, nil
}

// mayTell says whether the node has the pod, or had it last.
func (g *Gateway) mayTell(n schema.NodeName, about *corev1.ObjectReference) bool {
	if !dnsLabel.MatchString(about.Namespace) || !dnsSubdomain.MatchString(about.Name) {
		return false
	}
	pod := schema.PodKey{Namespace: about.Namespace, Name: about.Name}
	if a, ok := g.o.Assignments.Get(kv.AssignmentKey(n, pod)); ok && a.Value.Pod.UID == about.UID {
		return true
	}
	stored, _ := g.o.Actual.Get(kv.ObjectKey(podObject(pod)))
	r := stored.Value.Report
	return r != nil && r.Node == n && r.Pod.UID == about.UID
}

// publish stores nodes' news until ctx is done.
func (g *Gateway) publish(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case events := <-g.events:
			if err := g.o.Store.Publish(ctx, events); err != nil && ctx.Err() == nil {
				g.faults.count(schema.NodeName(events[0].Source.Host), "events lost")
				g.log.Debug("events lost", "events", len(events), "error", err)
			}
		}
	}
}
