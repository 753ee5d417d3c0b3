package kv

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pawl-project/pawl/schema"
)

const (
	// streamsMost is how many streams there may be at a time, and streamsPerNode
	// how many of one node.
	streamsMost    = 512
	streamsPerNode = 256
	// streamBudget is shared by the windows of all streams, in bytes, as far as
	// windowLeast allows: the more there are, the smaller is the next one's. So all
	// of them together stay below the 64 MiB that a server with default settings
	// keeps for a client that is slow to read, before it cuts it off.
	streamBudget = 8 << 20
	// openLimit bounds the wait for a node's answer to a request for a stream.
	openLimit = 30 * time.Second
	// streamPending is how much may wait in NATS' own queue for one stream: a
	// node that keeps to its credit stays far below.
	streamPendingMessages = 16 << 10
	streamPendingBytes    = 4 << 20
)

// A stream's subjects. The id is not to be guessed. The control plane listens to
// the one subject of each stream it opened, which names the node: no other node
// can publish there. A node listens to all of its own.
func streamUp(n schema.NodeName, id string) string {
	return "pawl.up." + string(n) + ".stream." + id
}

func streamDown(n schema.NodeName, id string) string {
	return "pawl.down." + string(n) + ".stream." + id
}

// Streams is the control plane's side of streams to nodes.
type Streams struct {
	conn *Conn

	// Changed by tests alone.
	ping, silence time.Duration
	most, perNode int

	mu      sync.Mutex
	closed  bool
	open    map[*Stream]schema.NodeName
	ofNode  map[schema.NodeName]int
	keepers sync.WaitGroup
}

// NewStreams returns the control plane's side on a connection with the
// gateway's credentials.
func NewStreams(c *Conn) *Streams {
	return &Streams{
		conn: c, ping: streamPing, silence: streamSilence, most: streamsMost, perNode: streamsPerNode,
		open: map[*Stream]schema.NodeName{}, ofNode: map[schema.NodeName]int{},
	}
}

// Run blocks until ctx is done, ends every stream, waits for it and returns nil.
// After that no stream can be opened.
func (s *Streams) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	for x := range s.open {
		x.finish(fmt.Errorf("the control plane is stopping: %w", schema.ErrUnavailable), true)
	}
	s.mu.Unlock()
	s.keepers.Wait()
	return nil
}

// Open asks a node for a stream and returns it once the node has accepted. The
// error is a *StreamError with the node's own words when it did not; it wraps
// schema.ErrUnavailable when the node cannot be reached or there are too many
// streams. The caller closes the stream; ctx bounds the opening alone.
func (s *Streams) Open(ctx context.Context, n schema.NodeName, r StreamRequest) (*Stream, error) {
	if err := n.Validate(); err != nil {
		return nil, err
	}
	id := rand.Text()
	x := newStream(s.conn, streamDown(n, id), streamUp(n, id), 0)
	x.peer = "node " + string(n)
	if err := s.admit(n, x); err != nil {
		return nil, err
	}
	opening, err := json.Marshal(streamOpening{Window: x.window, Request: r})
	if err == nil && len(opening) > streamText {
		err = fmt.Errorf("request for a stream has %d bytes, more than the %d that are allowed: %w", len(opening), streamText, schema.ErrRefused)
	}
	var sub *nats.Subscription
	if err == nil {
		sub, err = s.listen(x)
	}
	if err != nil {
		x.finish(err, false)
		s.forget(n, x)
		return nil, err
	}
	lost := x.endWithConnection()
	s.keepers.Go(func() {
		x.keep(s.ping, s.silence)
		lost()
		sub.Unsubscribe() //nolint:errcheck // fails only on a connection that is closed
		s.forget(n, x)
	})
	return x.opened(ctx, opening)
}

// opened sends the request and waits for the node's answer.
func (s *Stream) opened(ctx context.Context, opening []byte) (*Stream, error) {
	s.out.Lock()
	err := s.publish(frameOpen, opening)
	s.out.Unlock()
	if err != nil {
		return nil, err
	}
	return s.answered(ctx)
}

// answered waits for the node's answer.
func (s *Stream) answered(ctx context.Context) (*Stream, error) {
	t := time.NewTimer(openLimit)
	defer t.Stop()
	var err error
	select {
	case <-s.accepted:
		return s, nil
	case <-s.ctx.Done():
		select {
		case <-s.accepted: // and done with it already: what it sent is here to be read
			return s, nil
		default:
			return nil, s.reason()
		}
	case <-t.C:
		err = fmt.Errorf("stream to %s: no answer within %s: %w", s.peer, openLimit, schema.ErrUnavailable)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.Close(errStreamClosed)
	return nil, err
}

func (s *Streams) listen(x *Stream) (*nats.Subscription, error) {
	sub, err := s.conn.nc.Subscribe(x.reply, x.deliver)
	if err != nil {
		return nil, unavailable(fmt.Errorf("stream to %s: %w", x.peer, err))
	}
	if err := sub.SetPendingLimits(streamPendingMessages, streamPendingBytes); err != nil {
		return nil, unavailable(fmt.Errorf("stream to %s: %w", x.peer, err))
	}
	return sub, nil
}

// admit counts a stream in and gives it its window.
func (s *Streams) admit(n schema.NodeName, x *Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fmt.Errorf("the control plane is stopping: %w", schema.ErrUnavailable)
	case len(s.open) >= s.most:
		return fmt.Errorf("there are %d logs, commands and connections open already, the most there may be; close some: %w", s.most, schema.ErrUnavailable)
	case s.ofNode[n] >= s.perNode:
		return fmt.Errorf("there are %d logs, commands and connections open on node %s already, the most there may be; close some: %w", s.perNode, n, schema.ErrUnavailable)
	}
	s.open[x] = n
	s.ofNode[n]++
	x.window = windowOf(len(s.open))
	x.credit = x.window
	return nil
}

// windowOf is the window of a stream that is one of n.
func windowOf(n int) int { return min(max(streamBudget/n, windowLeast), windowMost) }

func (s *Streams) forget(n schema.NodeName, x *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, x)
	if s.ofNode[n]--; s.ofNode[n] == 0 {
		delete(s.ofNode, n)
	}
}

// Count says how many streams are open.
func (s *Streams) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// endWithConnection ends the stream when the connection is lost: what was on its
// way then never comes. stop ends the watch.
func (s *Stream) endWithConnection() (stop func()) {
	s.conn.mu.Lock()
	session := s.conn.session
	s.conn.mu.Unlock()
	cancel := context.AfterFunc(session, func() {
		s.finish(fmt.Errorf("stream to %s: %w: %w", s.peer, errLost, schema.ErrUnavailable), false)
	})
	return func() { cancel() }
}
