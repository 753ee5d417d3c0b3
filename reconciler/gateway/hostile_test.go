package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func strays(from, to int) []schema.PodReport {
	var many []schema.PodReport
	for i := from; i < to; i++ {
		many = append(many, report("n1", pod(fmt.Sprint("s", i)), corev1.PodRunning))
	}
	return many
}

// What waits to be stored counts: all of them in one request are no more than
// one after the other.
func TestStraysOfOneRequestAreBounded(t *testing.T) {
	c := newCluster(t)
	a := c.agent("n1")
	if err := a.ReportPods(t.Context(), strays(0, maxStrays+200)); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("%d strays at once: %v", maxStrays+200, err)
	}
	eventually(t, "the others are stored", func() bool { return c.actual.Len() >= maxStrays })
	a.report(t, strays(0, 1)...) // whatever came before it is stored by now
	if n := c.actual.Len(); n != maxStrays {
		t.Errorf("%d are stored", n)
	}
}

// The reconciler ends what a node invents, which only the node could say is gone.
// Such pods, and those that were adopted, count for as long as they are there,
// also for a node that says nothing for a while.
func TestStraysCountUntilTheyAreGone(t *testing.T) {
	c := newCluster(t)
	a := c.agent("n1")
	a.report(t, strays(0, maxStrays)...)
	for i := range 3 {
		c.assign("n1", pod(fmt.Sprint("s", i)))
	}
	a.report(t, report("n1", pod("s0"), corev1.PodFailed))
	if err := a.ReportPods(t.Context(), strays(maxStrays, maxStrays+3)); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("strays in place of those that are assigned now: %v", err)
	}
	a.stop()
	c.stopGateway()
	c.gateway.forgetSilent(time.Now().Add(2 * nodeSilence))
	if n := c.gateway.node("n1"); len(n.strays) != maxStrays || n.synced {
		t.Errorf("after a silence %d are counted; synced: %t", len(n.strays), n.synced)
	}
	for i := range maxStrays {
		c.remove(kv.Actuals, podKey(fmt.Sprint("s", i)))
	}
	c.gateway.forgetSilent(time.Now().Add(2 * nodeSilence))
	if n := len(c.gateway.nodes); n != 0 {
		t.Errorf("%d nodes are remembered", n)
	}
}

// A newer word that takes an older one's place is counted in bytes as well, and
// requests that wait hold nothing of what they brought.
func TestWhatWaitsIsBounded(t *testing.T) {
	b := newInbox()
	for i := range waitingMost {
		if err := b.put(&entry{key: fmt.Sprint(i), node: "n1", value: []byte("x")}, &job{}); err != nil {
			t.Fatal(err)
		}
	}
	refused := 0
	for i := range waitingMost {
		if err := b.put(&entry{key: fmt.Sprint(i), node: "n1", value: make([]byte, maxStatus)}, &job{}); err != nil {
			refused++
		}
	}
	if b.bytes["n1"] > waitingBytes || refused == 0 {
		t.Errorf("%d bytes of one node wait, %d refused", b.bytes["n1"], refused)
	}
	if err := b.put(&entry{key: "0", node: "n1", lease: true}, &job{}); err != nil {
		t.Errorf("a word without content: %v", err)
	}

	c := newCluster(t)
	c.assign("n1", pod("a"))
	c.stopGateway()
	c.gateway.takePods(kv.Request{Node: "n1", Verb: kv.VerbPods, Data: must[[]byte](t)(json.Marshal([]schema.PodReport{report("n1", pod("a"), corev1.PodRunning)}))})
	e := c.gateway.inbox.entries[podKey("a")]
	if e == nil || len(e.jobs) != 1 {
		t.Fatalf("waiting: %+v", e)
	}
	if n := len(e.jobs[0].request.Data); n != 0 {
		t.Errorf("%d bytes of the request are held", n)
	}
}

// The gateway forgets a node it does not hear of, because the store cannot be
// read for a while, say. The connection was never lost: the node learns from the
// answer to its heartbeat that it has to fetch its set.
func TestForgottenNodeFetchesItsSet(t *testing.T) {
	c := newCluster(t)
	c.stopGateway()
	for i := range 5 {
		c.assign("n1", pod(fmt.Sprint("p", i)))
	}
	g := c.gateway
	g.epoch = "the only one"
	requests, clerk := make(chan kv.Request), make(chan func())
	c.run(func(ctx context.Context) error {
		return g.door.Run(ctx, func(r kv.Request) {
			select {
			case requests <- r:
			case <-ctx.Done():
			}
		})
	})
	c.run(func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case r := <-requests:
				g.serve(r)
			case f := <-clerk:
				f()
			}
		}
	})
	a := c.agent("n1")
	wholes := a.counts()
	clerk <- func() {
		for range 5 {
			g.node("n1").generation++ // deltas that came and went
		}
		g.forgetSilent(time.Now().Add(2 * nodeSilence))
		if len(g.nodes) != 0 {
			t.Error("the node is not forgotten")
		}
	}
	node := &corev1.Node{}
	node.Name = "n1"
	if err := a.ReportNode(t.Context(), node); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("heartbeat of a node that is not known: %v", err)
	}
	eventually(t, "the node has fetched its set again", func() bool { return a.counts() > wholes })
}
