package kv

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pawl-project/pawl/schema"
)

// A StreamHandler does on the node what a stream asks for. It returns when that
// is done, or when ctx, which is the stream's, has ended. Before it has accepted
// (by Accept or Send) an error is the answer to the request; later it breaks the
// stream off; nil ends it as it should end.
type StreamHandler func(ctx context.Context, r StreamRequest, s *Stream) error

// ServeStreams answers the control plane's requests for streams to node n, by a
// connection with the node's credentials, until ctx is done. It returns nil
// after the last handler has returned.
func ServeStreams(ctx context.Context, c *Conn, n schema.NodeName, handle StreamHandler) error {
	v := &streamServer{
		conn: c, node: n, handle: handle, prefix: streamDown(n, ""),
		ping: streamPing, silence: streamSilence, most: streamsPerNode, open: map[string]*Stream{},
	}
	return v.run(ctx)
}

// A streamServer is the node's side of all its streams.
type streamServer struct {
	conn   *Conn
	node   schema.NodeName
	handle StreamHandler
	prefix string // of subjects; the rest is a stream's id

	ping, silence time.Duration
	most          int

	mu      sync.Mutex
	closed  bool
	open    map[string]*Stream // by id
	running sync.WaitGroup
}

func (v *streamServer) run(ctx context.Context) error {
	// One subscription for all: a node may have few.
	sub, err := v.conn.nc.Subscribe(streamDown(v.node, "*"), v.take)
	if err != nil {
		return unavailable(fmt.Errorf("listen for streams: %w", err))
	}
	defer sub.Unsubscribe() //nolint:errcheck // fails only on a connection that is closed
	// The control plane keeps to what it is granted, which is far less.
	if err := sub.SetPendingLimits(4*streamPendingMessages, v.most*windowMost); err != nil {
		return unavailable(fmt.Errorf("listen for streams: %w", err))
	}
	<-ctx.Done()
	v.mu.Lock()
	v.closed = true
	for _, s := range v.open {
		s.finish(fmt.Errorf("node %s: its agent is stopping: %w", v.node, schema.ErrUnavailable), true)
	}
	v.mu.Unlock()
	v.running.Wait()
	return nil
}

// take takes one message of the control plane. It does not block.
func (v *streamServer) take(m *nats.Msg) {
	id := strings.TrimPrefix(m.Subject, v.prefix)
	v.mu.Lock()
	s := v.open[id]
	v.mu.Unlock()
	if s != nil {
		s.deliver(m)
		return
	}
	f, err := parseStreamFrame(m.Data)
	if err != nil {
		return // also the server's word that nobody listens to a stream that is over
	}
	switch f.kind {
	case frameOpen:
		v.begin(id, f)
	case framePing:
		// Of a stream that an agent before this one had.
		v.refuse(id, fmt.Errorf("node %s: its agent was restarted: %w", v.node, schema.ErrUnavailable))
	}
}

// refuse answers for a stream that is not there.
func (v *streamServer) refuse(id string, err error) {
	b := append(appendFrame(nil, frameClose, 0), encodeClosing(err)...)
	_ = v.conn.nc.Publish(streamUp(v.node, id), b) //nolint:errcheck // the other side will notice the silence
}

// begin starts a stream.
func (v *streamServer) begin(id string, f streamFrame) {
	o, err := decodeOpening(f.data)
	if err == nil && f.number != 0 {
		err = fmt.Errorf("request for a stream out of place: %w", schema.ErrRefused)
	}
	if err != nil {
		v.refuse(id, err)
		return
	}
	s := newStream(v.conn, streamUp(v.node, id), streamDown(v.node, id), o.Window)
	s.node, s.peer, s.number = true, "the control plane", 1
	v.mu.Lock()
	full := len(v.open) >= v.most
	if !full && !v.closed {
		v.open[id] = s
		v.running.Go(func() { v.serve(id, s, o.Request) })
	}
	closed := v.closed
	v.mu.Unlock()
	switch {
	case closed:
		v.refuse(id, fmt.Errorf("node %s: its agent is stopping: %w", v.node, schema.ErrUnavailable))
	case full:
		v.refuse(id, fmt.Errorf("there are %d logs, commands and connections open on node %s already, the most there may be; close some: %w", v.most, v.node, schema.ErrUnavailable))
	}
}

// serve is the life of one stream.
func (v *streamServer) serve(id string, s *Stream, r StreamRequest) {
	lost := s.endWithConnection()
	defer lost()
	var keeper sync.WaitGroup
	keeper.Go(func() { s.keep(v.ping, v.silence) })
	err := v.handle(s.ctx, r, s)
	if err == nil {
		err = s.CloseSend()
	}
	s.finish(err, true)
	keeper.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.open, id)
}
