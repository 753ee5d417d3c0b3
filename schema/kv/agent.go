package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

const (
	agentTimeout = 10 * time.Second // for one answer of the gateway
	syncFirst    = 50 * time.Millisecond
	syncLongest  = 10 * time.Second
	// deltaGrace is how long a delta may be on its way before it counts as lost.
	deltaGrace = time.Second
	// deltaQueue is how many frames may wait for the handler. More are dropped,
	// which is a gap, which is a sync.
	deltaQueue = 256
)

// An AgentHandler takes what is assigned to a node. It is called from one
// goroutine, Whole first.
type AgentHandler interface {
	// Whole is everything there is, and replaces what was before.
	Whole(Set)
	// Delta is what changed since the last call.
	Delta(Delta)
}

// An Agent is a node's side of the node protocol.
type Agent struct {
	conn *Conn
	node schema.NodeName
	log  *slog.Logger

	resync chan struct{} // holds a token when what the node has may be old

	mu       sync.Mutex
	have     Generation
	expected Generation // that the gateway last said the node should be at
}

// NewAgent returns the node's side of the protocol on a connection with the
// node's credentials and the inbox prefix _INBOX.<node>.
func NewAgent(c *Conn, node schema.NodeName) *Agent {
	return &Agent{conn: c, node: node, log: c.log.With("node", string(node)), resync: make(chan struct{}, 1)}
}

// Run hands what is assigned to h until ctx is done, and then returns nil. It
// fetches the whole set at the start, after a gap, and when the connection was
// lost, trying again for ever.
func (a *Agent) Run(ctx context.Context, h AgentHandler) error {
	news := a.conn.Reconnected()
	defer news.Close()
	messages := make(chan *nats.Msg, deltaQueue)
	sub, err := a.conn.nc.ChanSubscribe(downSubject(a.node), messages)
	if err != nil {
		return unavailable(fmt.Errorf("subscribe to the assignments of node %s: %w", a.node, err))
	}
	defer sub.Unsubscribe() //nolint:errcheck // fails only on a connection that is closed
	r := receiver{agent: a, handler: h, messages: messages, news: news.C}
	for ctx.Err() == nil {
		if r.sync(ctx) {
			r.follow(ctx)
		}
	}
	return nil
}

// A receiver is the state of one Run.
type receiver struct {
	agent    *Agent
	handler  AgentHandler
	messages chan *nats.Msg
	news     <-chan struct{}
	frames   assembler
}

// sync fetches the whole set, trying until it is there (true) or ctx is done.
func (r *receiver) sync(ctx context.Context) bool {
	a := r.agent
	for pause := syncFirst; ctx.Err() == nil; pause = min(2*pause, syncLongest) {
		set, err := a.fetch(ctx)
		if err == nil {
			a.set(set.Generation)
			r.handler.Whole(*set)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if pause > time.Second {
			a.log.Warn("cannot fetch the node's assignments, trying again", "error", err)
		}
		t := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-r.news:
			pause = syncFirst
		}
		t.Stop()
	}
	return false
}

// follow takes deltas until the whole set must be fetched again, or ctx is done.
func (r *receiver) follow(ctx context.Context) {
	a := r.agent
	grace := time.NewTimer(deltaGrace)
	grace.Stop()
	defer grace.Stop()
	waiting := false // for the grace to end
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.news:
			if a.conn.Connected() {
				return // what was sent meanwhile did not arrive
			}
		case <-a.resync:
			if !waiting {
				waiting = true
				grace.Reset(deltaGrace)
			}
		case <-grace.C:
			waiting = false
			if a.behind() {
				a.log.Warn("changes of the node's assignments were lost, fetching all of them")
				return
			}
		case m := <-r.messages:
			if !r.take(m.Data) {
				return
			}
		}
	}
}

// take handles one frame; false: something was lost.
func (r *receiver) take(message []byte) bool {
	content, err := r.frames.add(message)
	if err != nil {
		r.agent.log.Warn("change of the node's assignments cannot be read", "error", err)
		return false
	}
	if content == nil {
		return true
	}
	var d Delta
	if err := json.Unmarshal(content, &d); err != nil {
		r.agent.log.Warn("change of the node's assignments cannot be read", "bytes", len(content))
		return false
	}
	have := r.agent.generation()
	switch {
	case d.Generation.Epoch == have.Epoch && d.Generation.Number <= have.Number:
		return true // older than the set that was fetched
	case d.Previous != have:
		r.agent.log.Debug("gap in the node's assignments", "have", have, "delta follows", d.Previous)
		return false
	}
	r.agent.set(d.Generation)
	r.handler.Delta(d)
	return true
}

func (a *Agent) generation() Generation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.have
}

func (a *Agent) set(g Generation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.have = g
}

// told notes the generation that the gateway says the node should be at.
func (a *Agent) told(g Generation) {
	a.mu.Lock()
	a.expected = g
	a.mu.Unlock()
	if a.behind() {
		signal(a.resync)
	}
}

func (a *Agent) behind() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.expected.Epoch != "" && (a.expected.Epoch != a.have.Epoch || a.expected.Number > a.have.Number)
}

// fetch asks for the whole set.
func (a *Agent) fetch(ctx context.Context) (*Set, error) {
	ctx, cancel := a.conn.whileConnected(ctx, agentTimeout)
	defer cancel()
	inbox := a.conn.nc.NewInbox()
	sub, err := a.conn.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, unavailable(err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // fails only on a connection that is closed
	if err := a.conn.nc.PublishRequest(upSubject(a.node, VerbSync), inbox, nil); err != nil {
		return nil, unavailable(err)
	}
	var parts assembler
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, unavailable(fmt.Errorf("fetch the set of node %s: %w", a.node, cause(ctx, err)))
		}
		if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
			return nil, fmt.Errorf("fetch the set of node %s: no gateway listens: %w", a.node, schema.ErrUnavailable)
		}
		content, err := parts.add(m.Data)
		if err != nil {
			return nil, unavailable(fmt.Errorf("fetch the set of node %s: %w", a.node, err))
		}
		if content == nil {
			continue
		}
		answer, err := decodeAnswer(content)
		if err != nil {
			return nil, err
		}
		if answer.Set == nil {
			return nil, fmt.Errorf("fetch the set of node %s: the answer holds none: %w", a.node, schema.ErrUnavailable)
		}
		return answer.Set, nil
	}
}

// ReportPods returns once the gateway has stored the reports. The error wraps
// schema.ErrRefused when one of them can never be stored, schema.ErrUnavailable
// when the gateway does not answer: then some of them may be stored.
func (a *Agent) ReportPods(ctx context.Context, reports []schema.PodReport) error {
	for len(reports) > 0 {
		n, content, err := packReports(reports)
		if err != nil {
			return err
		}
		if _, err := a.ask(ctx, VerbPods, content); err != nil {
			return err
		}
		reports = reports[n:]
	}
	return nil
}

// packReports encodes as many reports as fit into one message.
func packReports(reports []schema.PodReport) (n int, content []byte, err error) {
	content = append(content, '[')
	for i := range reports {
		r := &reports[i]
		text, err := json.Marshal(r)
		if err != nil {
			return 0, nil, fmt.Errorf("encode report of pod %s/%s: %w", r.Pod.Namespace, r.Pod.Name, err)
		}
		if len(text)+2 > MaxMessage {
			return 0, nil, fmt.Errorf("report of pod %s/%s has %d bytes, more than the %d that a message holds: %w", r.Pod.Namespace, r.Pod.Name, len(text), MaxMessage, schema.ErrRefused)
		}
		if len(content)+len(text)+2 > MaxMessage {
			break
		}
		if i > 0 {
			content = append(content, ',')
		}
		content = append(content, text...)
		n++
	}
	return n, append(content, ']'), nil
}

// ReportNode tells of the node itself, and is its heartbeat. Errors are as
// those of ReportPods.
func (a *Agent) ReportNode(ctx context.Context, n *corev1.Node) error {
	content, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode node %s: %w", n.Name, err)
	}
	if len(content) > MaxMessage {
		return fmt.Errorf("report of node %s has %d bytes, more than the %d that a message holds: %w", n.Name, len(content), MaxMessage, schema.ErrRefused)
	}
	answer, err := a.ask(ctx, VerbNode, content)
	if answer.Generation != nil { // also beside an error
		a.told(*answer.Generation)
	}
	return err
}

// ReportEvents tells of what happened. They are to fit into one message, and
// when it returns without an error the gateway has them, but may drop them. The
// error wraps schema.ErrRefused or schema.ErrUnavailable.
func (a *Agent) ReportEvents(ctx context.Context, events []corev1.Event) error {
	content, err := json.Marshal(events)
	if err != nil {
		return fmt.Errorf("encode %d events of node %s: %w", len(events), a.node, err)
	}
	if len(content) > MaxMessage {
		return fmt.Errorf("%d events of node %s have %d bytes, more than the %d that a message holds: %w", len(events), a.node, len(content), MaxMessage, schema.ErrRefused)
	}
	_, err = a.ask(ctx, VerbEvents, content)
	return err
}

// ReportUsage tells what the node and its containers take. When it returns
// without an error the gateway has it, unless it was told too often. Errors are
// as those of ReportEvents.
func (a *Agent) ReportUsage(ctx context.Context, u *schema.NodeUsage) error {
	content, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("encode the usage of node %s: %w", a.node, err)
	}
	if len(content) > MaxMessage {
		return fmt.Errorf("usage of node %s has %d bytes, more than the %d that a message holds: %w", a.node, len(content), MaxMessage, schema.ErrRefused)
	}
	_, err = a.ask(ctx, VerbUsage, content)
	return err
}

// ask sends one request and waits for its answer.
func (a *Agent) ask(ctx context.Context, v Verb, content []byte) (Answer, error) {
	ctx, cancel := a.conn.whileConnected(ctx, agentTimeout)
	defer cancel()
	m, err := a.conn.nc.RequestWithContext(ctx, upSubject(a.node, v), content)
	if err != nil {
		return Answer{}, unavailable(fmt.Errorf("report %s of node %s: %w", v, a.node, cause(ctx, err)))
	}
	var parts assembler
	part, err := parts.add(m.Data)
	if err != nil {
		return Answer{}, unavailable(fmt.Errorf("report %s of node %s: %w", v, a.node, err))
	}
	return decodeAnswer(part)
}

func decodeAnswer(content []byte) (Answer, error) {
	var answer Answer
	if err := json.Unmarshal(content, &answer); err != nil {
		return Answer{}, fmt.Errorf("answer of the gateway cannot be read (%d bytes): %w", len(content), schema.ErrUnavailable)
	}
	return answer, answer.err()
}

// cause prefers why the context ended to that it ended.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && errors.Is(err, ctx.Err()) {
		return c
	}
	return err
}
