package kv

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pawl-project/pawl/schema"
)

const (
	// windowMost and windowLeast bound what may be on its way in one direction of
	// a stream, in bytes.
	windowMost  = 512 << 10
	windowLeast = 2 * (streamData + frameCost)
	// streamPing is how often each side says that it lives, and streamSilence
	// after how long the other side is taken for dead.
	streamPing    = 3 * time.Second
	streamSilence = 10 * time.Second
	// pingsMost is how many pings may come between two of ours.
	pingsMost = 100
)

// errStreamClosed ends what waits on a stream that was closed on this side.
var errStreamClosed = fmt.Errorf("the stream is closed: %w", schema.ErrUnavailable)

// A Stream is one side of a stream. Send may be called from several goroutines,
// Recv from one; Close from any.
type Stream struct {
	conn    *Conn
	subject string // of the other side
	reply   string // subject of this side: the server answers there when nobody listens at the other
	node    bool   // this is the node's side
	window  int    // bytes of either direction
	peer    string // for messages

	ctx      context.Context // ends when the stream is over
	cancel   context.CancelCauseFunc
	accepted chan struct{} // closed when the node has accepted
	sending  chan struct{} // holds the token of who may wait for credit
	granted  chan struct{} // holds a token when credit came
	arrived  chan struct{} // holds a token when something came
	sizes    chan TermSize // the newest size

	out struct {
		sync.Mutex // guards the order of frames; held while one is published
		number     uint32
		buffer     []byte
		accepted   bool // frame sent
		ended      bool
	}

	mu       sync.Mutex
	credit   int // bytes that may be sent
	queue    []streamFrame
	waiting  int    // cost of queue
	consumed int    // cost of what was taken from it and not granted again
	number   uint32 // of the next frame
	accepts  bool   // accepted is closed
	ended    bool   // the other side sends no more
	heard    time.Time
	pings    int
	over     bool
	err      error // why it is over; nil: closed as it should be
	tell     bool  // the other side does not know
}

func newStream(c *Conn, subject, reply string, window int) *Stream {
	s := &Stream{
		conn: c, subject: subject, reply: reply, window: window, credit: window, heard: time.Now(),
		accepted: make(chan struct{}), sending: make(chan struct{}, 1), granted: make(chan struct{}, 1),
		arrived: make(chan struct{}, 1), sizes: make(chan TermSize, 1),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// Context ends when the stream is over, for whatever reason.
func (s *Stream) Context() context.Context { return s.ctx }

// Resizes is where the node finds the newest size of the terminal.
func (s *Stream) Resizes() <-chan TermSize { return s.sizes }

// Accept tells the control plane that the node does what it was asked for: Open
// returns. The first Send does the same.
func (s *Stream) Accept() error {
	s.out.Lock()
	defer s.out.Unlock()
	return s.accept()
}

// Accepted says whether the control plane was told that the node has accepted.
func (s *Stream) Accepted() bool {
	s.out.Lock()
	defer s.out.Unlock()
	return s.out.accepted
}

// accept is called with out held.
func (s *Stream) accept() error {
	if !s.node || s.out.accepted {
		return nil
	}
	s.out.accepted = true
	return s.publish(frameAccept, nil)
}

// Send sends bytes of a channel. It blocks while the other side has not granted
// credit. The error is the context's, or why the stream is over.
func (s *Stream) Send(ctx context.Context, channel byte, data []byte) error {
	if channel == ChannelResize {
		return s.post(channel, data)
	}
	select {
	case s.sending <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ctx.Done():
		return s.reason()
	}
	defer func() { <-s.sending }()
	for first := true; first || len(data) > 0; first = false {
		part := data[:min(len(data), streamData)]
		if err := s.pay(ctx, len(part)+frameCost); err != nil {
			return err
		}
		if err := s.post(channel, part); err != nil {
			return err
		}
		data = data[len(part):]
	}
	return nil
}

// pay takes credit, waiting for it.
func (s *Stream) pay(ctx context.Context, cost int) error {
	for {
		s.mu.Lock()
		if s.over {
			s.mu.Unlock()
			return s.reason()
		}
		if s.credit >= cost {
			s.credit -= cost
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-s.granted:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ctx.Done():
			return s.reason()
		}
	}
}

// post publishes a data frame that is paid for.
func (s *Stream) post(channel byte, data []byte) error {
	if channel > ChannelResize || channel == ChannelResize && len(data) > resizeMost {
		return fmt.Errorf("send %d bytes on channel %d: %w", len(data), channel, schema.ErrRefused)
	}
	s.out.Lock()
	defer s.out.Unlock()
	if s.out.ended {
		return errStreamClosed
	}
	if err := s.accept(); err != nil {
		return err
	}
	return s.publish(frameData, data, channel)
}

// publish sends a frame; out is held. prefix comes before the data.
func (s *Stream) publish(k frameKind, data []byte, prefix ...byte) error {
	b := append(append(appendFrame(s.out.buffer[:0], k, s.out.number), prefix...), data...)
	s.out.buffer = b
	s.out.number++
	var err error
	if k == framePing || k == frameOpen {
		// The server answers when nobody listens at the other side.
		err = s.conn.nc.PublishRequest(s.subject, s.reply, b)
	} else {
		err = s.conn.nc.Publish(s.subject, b)
	}
	if cap(b) > 2*streamData {
		s.out.buffer = nil
	}
	if err != nil {
		err = unavailable(fmt.Errorf("stream to %s: %w", s.peer, err))
		s.finish(err, false)
	}
	return err
}

// Recv returns the next bytes and their channel; they are the caller's. The
// error is io.EOF when the other side has sent everything, the context's, or
// why the stream broke off.
func (s *Stream) Recv(ctx context.Context) (channel byte, data []byte, err error) {
	for {
		f, grant, err := s.take()
		if grant > 0 {
			s.grant(grant)
		}
		if err != nil {
			return 0, nil, err
		}
		if f.kind != 0 {
			return f.channel, f.data, nil
		}
		select {
		case <-s.arrived:
		case <-s.ctx.Done():
		case <-ctx.Done():
			if s.ctx.Err() == nil { // else what came before the stream's own end, and that, say more
				return 0, nil, context.Cause(ctx)
			}
		}
	}
}

// take takes a frame from the queue, if there is one, and says how much credit
// to grant.
func (s *Stream) take() (f streamFrame, grant int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return f, 0, s.leftLocked()
	}
	f, s.queue[0] = s.queue[0], streamFrame{}
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil // a quiet stream costs nothing
	}
	cost := len(f.data) + frameCost
	s.waiting -= cost
	s.consumed += cost
	if s.consumed >= s.window/4 && !s.over {
		grant, s.consumed = s.consumed, 0
	}
	return f, grant, nil
}

// leftLocked is the error for a stream whose queue is empty; nil: more may come.
func (s *Stream) leftLocked() error {
	switch {
	case s.ended:
		return io.EOF
	case s.over:
		return s.reasonLocked()
	}
	return nil
}

func (s *Stream) grant(n int) {
	s.out.Lock()
	defer s.out.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	_ = s.publish(frameCredit, b[:]) //nolint:errcheck // it ended the stream
}

// CloseSend says that this side sends no more. Receiving goes on.
func (s *Stream) CloseSend() error {
	s.out.Lock()
	defer s.out.Unlock()
	if s.out.ended {
		return nil
	}
	if err := s.accept(); err != nil {
		return err
	}
	s.out.ended = true
	if s.ctx.Err() != nil {
		return s.reason()
	}
	return s.publish(frameEnd, nil)
}

// Close ends the stream at once; err, which may be nil, is what the other side
// is told. What was received and not read is dropped. Calls after the first, and
// after the stream's end, do nothing.
func (s *Stream) Close(err error) {
	s.finish(err, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue, s.waiting = nil, 0
}

// finish makes the stream over. Its keeper clears it away.
func (s *Stream) finish(err error, tell bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over, s.err, s.tell = true, err, tell
	s.cancel(s.reasonLocked())
}

// reason is why the stream is over, never nil.
func (s *Stream) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reasonLocked()
}

func (s *Stream) reasonLocked() error {
	if s.err != nil {
		return s.err
	}
	return errStreamClosed
}

// keep says that this side lives and finds out whether the other does, until the
// stream is over; then it tells the other side.
func (s *Stream) keep(ping, silence time.Duration) {
	ticks := time.NewTicker(ping)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			s.alive(time.Now(), silence)
		case <-s.ctx.Done():
			s.farewell()
			return
		}
	}
}

func (s *Stream) alive(now time.Time, silence time.Duration) {
	s.mu.Lock()
	silent := now.Sub(s.heard)
	s.pings = 0
	s.mu.Unlock()
	if silent > silence {
		s.finish(fmt.Errorf("stream to %s: nothing was heard for %s: %w", s.peer, silent.Round(time.Second), schema.ErrUnavailable), true)
		return
	}
	s.out.Lock()
	defer s.out.Unlock()
	_ = s.publish(framePing, nil) //nolint:errcheck // it ended the stream
}

func (s *Stream) farewell() {
	s.mu.Lock()
	tell, err := s.tell, s.err
	s.mu.Unlock()
	if !tell {
		return
	}
	s.out.Lock()
	defer s.out.Unlock()
	_ = s.publish(frameClose, encodeClosing(err)) //nolint:errcheck // the stream is over
}

// deliver takes a message of the other side. It does not block.
func (s *Stream) deliver(m *nats.Msg) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		s.finish(fmt.Errorf("stream to %s: it does not listen: %w", s.peer, schema.ErrUnavailable), false)
		return
	}
	f, err := parseStreamFrame(m.Data)
	switch {
	case len(m.Header) > 0:
		err = fmt.Errorf("a frame with headers: %w", schema.ErrRefused)
	case err == nil:
		err = s.put(f)
	}
	if err != nil {
		s.finish(fmt.Errorf("stream to %s: %w", s.peer, err), true)
	}
}

// put takes a frame. The error ends the stream.
func (s *Stream) put(f streamFrame) error {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil
	}
	s.heard = time.Now()
	if f.kind == frameClose {
		if err := decodeClosing(f.data); err != nil || f.number == s.number {
			s.mu.Unlock()
			s.finish(err, false)
			return nil
		}
	}
	defer s.mu.Unlock()
	if f.number != s.number {
		return fmt.Errorf("messages were lost: %w", schema.ErrUnavailable)
	}
	s.number++
	if s.ended && f.kind == frameData {
		return fmt.Errorf("data after the end: %w", schema.ErrRefused)
	}
	return s.putLocked(f)
}

func (s *Stream) putLocked(f streamFrame) error {
	switch f.kind {
	case frameData:
		return s.enqueue(f)
	case frameCredit:
		if s.credit += f.credit; s.credit > s.window {
			return fmt.Errorf("more was granted than was sent: %w", schema.ErrRefused)
		}
		signal(s.granted)
	case frameEnd:
		s.ended = true
		signal(s.arrived)
	case frameAccept:
		if s.node || s.accepts {
			return fmt.Errorf("accepted twice: %w", schema.ErrRefused)
		}
		s.accepts = true
		close(s.accepted)
	case framePing:
		if s.pings++; s.pings > pingsMost {
			return fmt.Errorf("a flood of pings: %w", schema.ErrRefused)
		}
	default:
		return errors.New("a frame out of place")
	}
	return nil
}

func (s *Stream) enqueue(f streamFrame) error {
	toNode := f.channel == ChannelStdin || f.channel == ChannelResize
	if s.node != toNode || !s.node && !s.accepts {
		return fmt.Errorf("channel %d from the wrong side: %w", f.channel, schema.ErrRefused)
	}
	if f.channel == ChannelResize {
		var size TermSize
		if err := json.Unmarshal(f.data, &size); err != nil {
			return fmt.Errorf("size of a terminal: %w: %w", err, schema.ErrRefused)
		}
		select {
		case <-s.sizes: // an older one that nobody took
		default:
		}
		s.sizes <- size // there is room: nobody else sends
		return nil
	}
	cost := len(f.data) + frameCost
	if s.waiting+s.consumed+cost > s.window {
		return fmt.Errorf("more was sent than was granted: %w", schema.ErrRefused)
	}
	s.waiting += cost
	s.queue = append(s.queue, f)
	signal(s.arrived)
	return nil
}
