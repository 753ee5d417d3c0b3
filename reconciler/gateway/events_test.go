package gateway

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"encoding/json"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/event"
	"github.com/pawl-project/pawl/schema/kv"
)

func started(pod string, change ...func(*corev1.Event)) corev1.Event {
	about := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: pod, UID: types.UID("uid-" + pod), FieldPath: "spec.containers{main}"}
	e, _ := event.NewRecorder("nodeagent", "n1").Record(event.News{About: about, Type: "Normal", Reason: "Started", Message: "Started container main"}, time.Now())
	for _, f := range change {
		f(&e)
	}
	return e
}

// listen collects the Events that are stored.
func (c *cluster) listen() <-chan corev1.Event {
	c.t.Helper()
	nc := c.raw(must[kv.Credentials](c.t)(c.server.ControlCredentials()), "").nc
	events := make(chan corev1.Event, 10000)
	must[*nats.Subscription](c.t)(nc.Subscribe("pawl.events.>", func(m *nats.Msg) {
		var e corev1.Event
		if err := json.Unmarshal(m.Data, &e); err != nil {
			c.t.Error(err)
		}
		events <- e
	}))
	if err := nc.Flush(); err != nil {
		c.t.Fatal(err)
	}
	return events
}

func next(t *testing.T, events <-chan corev1.Event) corev1.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event is stored")
		return corev1.Event{}
	}
}

func TestNodesTellOfTheirPods(t *testing.T) {
	c := newCluster(t)
	events := c.listen()
	c.assign("n1", pod("mine"))
	a := c.agent("n1")
	told := started("mine", func(e *corev1.Event) { // what a node has no word in
		e.Source = corev1.EventSource{Component: "reconciler", Host: "n2"}
		e.ReportingController, e.ReportingInstance, e.UID, e.Namespace = "reconciler", "n2", "mine", "elsewhere"
		e.Labels, e.Action = map[string]string{"a": "b"}, "x"
		e.InvolvedObject.ResourceVersion = "7"
	})
	if err := a.ReportEvents(t.Context(), []corev1.Event{told}); err != nil {
		t.Fatal(err)
	}
	e := next(t, events)
	if e.Source != (corev1.EventSource{Component: "nodeagent", Host: "n1"}) || e.ReportingController != "nodeagent" || e.ReportingInstance != "n1" ||
		e.Namespace != "default" || len(e.Labels) > 0 || e.Action != "" || e.InvolvedObject.ResourceVersion != "" {
		t.Errorf("stored %+v", e)
	}
	if e.InvolvedObject.UID != "uid-mine" || e.InvolvedObject.FieldPath != "spec.containers{main}" || e.Message != told.Message || e.Count != 1 {
		t.Errorf("stored %+v", e)
	}
	if e.Name == told.Name || !strings.HasPrefix(e.Name, "mine.") {
		t.Errorf("its name %s is the node's choice", e.Name)
	}
	told.Count = 2
	if err := a.ReportEvents(t.Context(), []corev1.Event{told}); err != nil {
		t.Fatal(err)
	}
	if again := next(t, events); again.Name != e.Name || again.Count != 2 {
		t.Errorf("the second time: %s ×%d, the first: %s", again.Name, again.Count, e.Name)
	}
	// A clock that is ahead does not put news into the future.
	if err := a.ReportEvents(t.Context(), []corev1.Event{started("mine", func(e *corev1.Event) { e.LastTimestamp.Time = time.Now().Add(30 * time.Minute) })}); err != nil {
		t.Fatal(err)
	}
	if ahead := next(t, events); ahead.LastTimestamp.After(time.Now()) {
		t.Errorf("it happened at %s", ahead.LastTimestamp)
	}
	// About itself; the uid is the one by which kubectl looks for it.
	node, _ := event.NewRecorder("nodeagent", "n1").Record(event.News{About: corev1.ObjectReference{Kind: "Node", Name: "n1"}, Type: "Normal", Reason: "Starting", Message: "x"}, time.Now())
	if err := a.ReportEvents(t.Context(), []corev1.Event{node}); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); e.InvolvedObject.UID != "n1" || e.Namespace != "default" {
		t.Errorf("about the node: %+v", e)
	}
	// Of a pod that was unassigned and that it reported last it may still tell.
	if err := a.ReportPods(t.Context(), []schema.PodReport{report("n1", pod("mine"), corev1.PodRunning)}); err != nil {
		t.Fatal(err)
	}
	c.remove(kv.Assignments, kv.AssignmentKey("n1", schema.PodKey{Namespace: "default", Name: "mine"}))
	if err := a.ReportEvents(t.Context(), []corev1.Event{told}); err != nil {
		t.Error(err)
	}
}

func TestNodesTellOfNothingElse(t *testing.T) {
	c := newCluster(t)
	events := c.listen()
	c.assign("n1", pod("mine"))
	c.assign("n2", pod("theirs"))
	a := c.agent("n1")
	for what, e := range map[string]corev1.Event{
		"a pod of another node":   started("theirs"),
		"a pod nobody has":        started("nobody"),
		"a former pod's uid":      started("mine", func(e *corev1.Event) { e.InvolvedObject.UID = "of-another" }),
		"another namespace":       started("mine", func(e *corev1.Event) { e.InvolvedObject.Namespace = "kube-system" }),
		"no namespace":            started("mine", func(e *corev1.Event) { e.InvolvedObject.Namespace = "" }),
		"a subject of its choice": started("mine", func(e *corev1.Event) { e.InvolvedObject.Namespace = "x.>" }),
		"another node": started("n2", func(e *corev1.Event) {
			e.InvolvedObject = corev1.ObjectReference{Kind: "Node", Name: "n2"}
		}),
		"a Deployment":      started("mine", func(e *corev1.Event) { e.InvolvedObject.Kind = "Deployment" }),
		"a terminal code":   started("mine", func(e *corev1.Event) { e.Message = "\x1b[2J" }),
		"a novel":           started("mine", func(e *corev1.Event) { e.Message = strings.Repeat("x", 2000) }),
		"a foreign name":    started("mine", func(e *corev1.Event) { e.Name = "theirs.0011" }),
		"an odd reason":     started("mine", func(e *corev1.Event) { e.Reason = "No Such" }),
		"a negative number": started("mine", func(e *corev1.Event) { e.Count = -1 }),
	} {
		if err := a.ReportEvents(t.Context(), []corev1.Event{e}); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("about %s: %v", what, err)
		}
	}
	var many []corev1.Event
	for range maxEvents + 1 {
		many = append(many, started("mine"))
	}
	if err := a.ReportEvents(t.Context(), many); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("too many at once: %v", err)
	}
	// What is allowed in the same request is stored, and nothing else was.
	if err := a.ReportEvents(t.Context(), []corev1.Event{started("theirs"), started("mine")}); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("one of two: %v", err)
	}
	if e := next(t, events); e.InvolvedObject.Name != "mine" {
		t.Errorf("stored %+v", e)
	}
	if n := len(events); n != 0 {
		t.Errorf("%d more are stored", n)
	}
}

// A node that tells and tells fills neither the stream nor memory.
func TestANodeThatTellsTooMuch(t *testing.T) {
	c := newCluster(t)
	events := c.listen()
	c.assign("n1", pod("mine"))
	a := c.agent("n1")
	const batches = 6
	for i := range batches {
		var many []corev1.Event
		for j := range maxEvents {
			many = append(many, started("mine", func(e *corev1.Event) { e.Name = fmt.Sprintf("mine.%x", 1000*i+j) }))
		}
		if err := a.ReportEvents(t.Context(), many); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the allowed ones are stored", func() bool { return len(events) >= nodeEventsBurst })
	if n := len(events); n > nodeEventsBurst+200 {
		t.Errorf("%d of %d are stored", n, batches*maxEvents)
	}
	if n := c.gateway.Faults()["too many events"]; n < (batches-3)*maxEvents {
		t.Errorf("%d counted as too many", n)
	}
}
