package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"github.com/pawl-project/pawl/schema"
)

// Limits of one node. An agent that works stays far below them.
const (
	nodeRequests      = 500 // a second
	nodeRequestsBurst = 1000
	nodeBytes         = 8 << 20 // a second
	nodeBytesBurst    = 32 << 20
	// nodesMost bounds how many nodes are known at a time.
	nodesMost = 50_000
	// nodeIdle is after how long a silent node's allowance is forgotten.
	nodeIdle = 10 * time.Minute
	// doorBytes and doorMessages bound what waits in memory to be looked at.
	doorBytes    = 64 << 20
	doorMessages = 64 << 10
)

// A Request is what an agent asks for. Who asks is known from the subject,
// which the server has checked; nothing else about it has been.
type Request struct {
	Node  schema.NodeName
	Verb  Verb
	Data  []byte // at most MaxMessage
	reply string
}

// A Door is the gateway's side of the node protocol. It lets in what is no
// threat to the server or to other nodes, and answers.
type Door struct {
	conn *Conn
	// dropped is told of each request that is not let in.
	dropped func(n schema.NodeName, cause string)

	mu    sync.Mutex
	nodes map[schema.NodeName]*allowance
	swept time.Time
}

type allowance struct {
	requests, bytes *rate.Limiter
	last            time.Time
}

// NewDoor returns a door on a connection with the gateway's credentials.
// dropped is called for each request that is not let in, with one of a few
// fixed causes; it must be fast.
func NewDoor(c *Conn, dropped func(n schema.NodeName, cause string)) *Door {
	return &Door{conn: c, dropped: dropped, nodes: map[schema.NodeName]*allowance{}}
}

// Run calls handle for each request that is let in, one at a time, until ctx is
// done, and then returns nil. While handle does not return, requests wait, and
// beyond a bound they are dropped.
func (d *Door) Run(ctx context.Context, handle func(Request)) error {
	var stopped atomic.Bool
	var running sync.Mutex
	sub, err := d.conn.nc.Subscribe("pawl.up.*.*", func(m *nats.Msg) {
		running.Lock()
		defer running.Unlock()
		if r, ok := d.admit(m, time.Now()); ok && !stopped.Load() {
			handle(r)
		}
	})
	if err != nil {
		return unavailable(fmt.Errorf("listen to the nodes: %w", err))
	}
	if err := sub.SetPendingLimits(doorMessages, doorBytes); err != nil {
		return unavailable(fmt.Errorf("listen to the nodes: %w", err))
	}
	<-ctx.Done()
	stopped.Store(true)
	sub.Unsubscribe() //nolint:errcheck // fails only on a connection that is closed
	running.Lock()    // wait for the handler
	defer running.Unlock()
	return nil
}

// News returns news of the connection to the nodes.
func (d *Door) News() *Reconnects { return d.conn.Reconnected() }

// admit says whether a request may come in.
func (d *Door) admit(m *nats.Msg, now time.Time) (Request, bool) {
	n, v, err := parseUpSubject(m.Subject)
	if err != nil {
		d.dropped("", "unknown subject")
		return Request{}, false
	}
	a := d.allowance(n, now)
	switch {
	case a == nil:
		d.dropped(n, "too many nodes")
	case !a.requests.AllowN(now, 1) || !a.bytes.AllowN(now, len(m.Data)):
		d.dropped(n, "too many requests")
	case len(m.Data) > MaxMessage:
		d.dropped(n, "too large")
	case !safeReply(n, m.Reply):
		// The server does not check this. An answer to whatever subject a node
		// names would be a message sent in the gateway's name.
		d.dropped(n, "reply is not below the node's inbox")
	default:
		return Request{Node: n, Verb: v, Data: m.Data, reply: m.Reply}, true
	}
	return Request{}, false
}

func safeReply(n schema.NodeName, reply string) bool {
	rest, ok := strings.CutPrefix(reply, inboxPrefix(n))
	if !ok || rest == "" || len(reply) > 256 {
		return false
	}
	return !strings.ContainsAny(rest, "*> \t\r\n")
}

func (d *Door) allowance(n schema.NodeName, now time.Time) *allowance {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.swept) > time.Minute {
		d.swept = now
		for n, a := range d.nodes {
			if now.Sub(a.last) > nodeIdle {
				delete(d.nodes, n)
			}
		}
	}
	a := d.nodes[n]
	if a == nil {
		if len(d.nodes) >= nodesMost {
			return nil
		}
		a = &allowance{requests: rate.NewLimiter(nodeRequests, nodeRequestsBurst), bytes: rate.NewLimiter(nodeBytes, nodeBytesBurst)}
		d.nodes[n] = a
	}
	a.last = now
	return a
}

// Answer answers a request. The error wraps schema.ErrUnavailable when it
// cannot be sent; the agent will ask again.
func (d *Door) Answer(r Request, a Answer) error {
	return d.send(r.reply, a)
}

// Send sends a delta to a node. A node that does not listen does not get it;
// it will find out by the next delta, or by the answer to its heartbeat.
func (d *Door) Send(n schema.NodeName, delta Delta) error {
	return d.send(downSubject(n), delta)
}

func (d *Door) send(subject string, what any) error {
	content, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("encode a message to %s: %w", subject, err)
	}
	for _, f := range frames(content) {
		if err := d.conn.nc.Publish(subject, f); err != nil {
			return unavailable(fmt.Errorf("send to %s: %w", subject, err))
		}
	}
	return nil
}
