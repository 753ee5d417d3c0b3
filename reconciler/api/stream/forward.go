package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// forwardMade bounds the wait for the second of a connection's two streams.
	forwardMade = 30 * time.Second
	// forwardIdle ends a session in which nothing flows.
	forwardIdle = 4 * time.Hour
	// forwardMost is how many connections of one session may wait for their other
	// half at a time; those that have it count as streams.
	forwardMost = 256
)

// PortForward answers GET (SPDY inside WebSocket) and POST (SPDY)
// pods/{name}/portforward. The client makes two streams for each connection that
// it was asked for, one for data and one for an error; here each becomes a stream
// to the node.
func (s *Streams) PortForward(w http.ResponseWriter, r *http.Request, k schema.PodKey) {
	leave, err := s.enter(&s.forward)
	if err != nil {
		s.refused(w, r, err)
		return
	}
	defer leave()
	p, ok := s.o.Pod(k)
	switch {
	case !ok:
		err = apierrors.NewNotFound(corev1.Resource("pods"), k.Name)
	case p.Spec.NodeName == "":
		err = apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", p.Name))
	}
	if err != nil {
		s.refused(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	f := &forwarding{s: s, key: k, pod: p, ctx: ctx, made: make(chan madeStream), pairs: map[string]*forwardPair{}}
	if err := f.upgrade(w, r); err != nil {
		s.o.Logger.Debug("a client that forwards ports could not be reached", "pod", k, "error", err)
		return // it was told
	}
	f.run(cancel)
}

// A forwarding is one session with a client.
type forwarding struct {
	s    *Streams
	key  schema.PodKey
	pod  *corev1.Pod
	ctx  context.Context // ends with the client, the server and the pod
	conn httpstream.Connection
	made chan madeStream

	pairs map[string]*forwardPair // by request; owned by run
	open  sync.WaitGroup
}

// A forwardPair is what the client makes for one connection.
type forwardPair struct {
	data, err httpstream.Stream
	port      uint16
	since     time.Time
}

// upgrade makes the session. When it fails it has answered.
func (f *forwarding) upgrade(w http.ResponseWriter, r *http.Request) error {
	if websocket.IsWebSocketUpgrade(r) {
		return f.upgradeWebSocket(w, r)
	}
	if !httpstream.IsUpgradeRequest(r) {
		err := apierrors.NewBadRequest("Upgrade request required")
		writeError(w, err)
		return err
	}
	if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardV1Name}); err != nil {
		return err
	}
	if f.conn = spdy.NewResponseUpgrader().UpgradeResponse(w, r, f.receive); f.conn == nil {
		return errors.New("the connection cannot be upgraded to SPDY")
	}
	return nil
}

func (f *forwarding) upgradeWebSocket(w http.ResponseWriter, r *http.Request) error {
	spoken := []string{portforward.WebsocketsSPDYTunnelingPortForwardV1}
	if asked := websocket.Subprotocols(r); !slices.Contains(asked, spoken[0]) {
		err := apierrors.NewBadRequest(fmt.Sprintf("none of the protocols %q is spoken here, only %q", asked, spoken))
		writeError(w, err)
		return err
	}
	u := websocket.Upgrader{ReadBufferSize: tunnelBuffer, WriteBufferSize: tunnelBuffer, Subprotocols: spoken, Error: notUpgraded}
	socket, err := u.Upgrade(w, r, nil)
	if err != nil {
		return err
	}
	f.conn, err = spdy.NewServerConnection(&tunnel{Conn: socket}, f.receive)
	return err
}

// receive takes a stream that the client has made. An error refuses it.
func (f *forwarding) receive(x httpstream.Stream, replied <-chan struct{}) error {
	if _, err := forwardedPort(x); err != nil {
		return err
	}
	if t := x.Headers().Get(corev1.StreamType); t != corev1.StreamTypeData && t != corev1.StreamTypeError {
		return fmt.Errorf("invalid stream type %q", t)
	}
	select {
	case f.made <- madeStream{x, replied}:
		return nil
	case <-f.ctx.Done():
		return errors.New("the session is over")
	}
}

func forwardedPort(x httpstream.Stream) (uint16, error) {
	text := x.Headers().Get(corev1.PortHeader)
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is no port", text)
	}
	return uint16(port), nil
}

// run blocks until the session and all of its connections have ended.
func (f *forwarding) run(cancel context.CancelFunc) {
	defer f.open.Wait()
	defer f.conn.Close()
	defer cancel()
	f.conn.SetIdleTimeout(forwardIdle)
	looks := time.NewTicker(f.s.ping)
	defer looks.Stop()
	for {
		select {
		case x := <-f.made:
			f.add(x)
		case <-looks.C:
			if !f.stands() {
				return
			}
			f.expire(time.Now())
		case <-f.conn.CloseChan():
			return
		case <-f.ctx.Done():
			return
		}
	}
}

// stands says whether the pod is still the one that the session is for.
func (f *forwarding) stands() bool {
	p, ok := f.s.o.Pod(f.key)
	return ok && p.UID == f.pod.UID && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// add puts a stream to its other half, and begins when both are there.
func (f *forwarding) add(x madeStream) {
	request, kind := forwardRequest(x.Stream), x.Headers().Get(corev1.StreamType)
	p := f.pairs[request]
	if p == nil {
		if len(f.pairs) >= forwardMost {
			_ = x.Reset() //nolint:errcheck // the client hears of it, or is gone
			return
		}
		p = &forwardPair{since: time.Now()}
		f.pairs[request] = p
	}
	half := &p.err
	if kind == corev1.StreamTypeData {
		half = &p.data
		p.port, _ = forwardedPort(x.Stream) //nolint:errcheck // receive has looked
	}
	if *half != nil {
		_ = x.Reset() //nolint:errcheck // see above
		return
	}
	*half = x.Stream
	if p.data != nil && p.err != nil {
		delete(f.pairs, request)
		f.open.Go(func() {
			select {
			case <-x.replied:
				f.carry(p)
			case <-f.ctx.Done():
			}
		})
	}
}

// forwardRequest names what a stream belongs to. Old clients give no name, but
// make the two streams one after the other, the error's first.
func forwardRequest(x httpstream.Stream) string {
	if id := x.Headers().Get(corev1.PortForwardRequestIDHeader); id != "" {
		return id
	}
	if x.Headers().Get(corev1.StreamType) == corev1.StreamTypeData {
		return fmt.Sprintf("stream %d", x.Identifier()-2)
	}
	return fmt.Sprintf("stream %d", x.Identifier())
}

// expire drops halves whose other half does not come.
func (f *forwarding) expire(now time.Time) {
	for request, p := range f.pairs {
		if now.Sub(p.since) < forwardMade {
			continue
		}
		delete(f.pairs, request)
		for _, x := range []httpstream.Stream{p.data, p.err} {
			if x != nil {
				_ = x.Reset() //nolint:errcheck // the client hears of it, or is gone
				f.conn.RemoveStreams(x)
			}
		}
	}
}

// carry is the life of one connection. What goes wrong in it is told on its
// error stream, and concerns no other.
func (f *forwarding) carry(p *forwardPair) {
	defer f.conn.RemoveStreams(p.data, p.err)
	err := f.connect(p)
	if err != nil && f.ctx.Err() == nil {
		_, _ = fmt.Fprintf(p.err, "error forwarding port %d to pod %s, uid %s: %s", p.port, f.pod.Name, f.pod.UID, plainText(err)) //nolint:errcheck // the client is gone then
		_ = p.err.Close()                                                                                                          //nolint:errcheck // see above
		_ = p.data.Reset()                                                                                                         //nolint:errcheck // see above
		return
	}
	_ = p.data.Close() //nolint:errcheck // see above
	_ = p.err.Close()  //nolint:errcheck // see above
}

func (f *forwarding) connect(p *forwardPair) error {
	leave, err := f.s.enter(&f.s.forwarded)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	c, err := f.s.open(ctx, f.pod, kv.StreamRequest{Verb: kv.StreamForward, Forward: &kv.ForwardRequest{Port: p.port}})
	if err != nil {
		return err
	}
	defer c.Close(nil)
	x := &clientInput{Stream: p.data, session: f.conn}
	up := make(chan error, 1)
	f.open.Go(func() { // ends with the stream of data, which ends with the session
		err := sendAll(ctx, c, x)
		if err != nil {
			cancel(err)
		}
		up <- err
	})
	err = receiveAll(ctx, c, p.data)
	if err == nil && f.ctx.Err() == nil {
		// The pod says no more. What the client still says goes to it until one of
		// them has enough: the client resets, or the node closes.
		x.closed.Store(true)
		_ = p.data.Close() //nolint:errcheck // the client is gone then
		f.linger(c, up)
	}
	c.Close(nil)
	_ = p.data.Reset() //nolint:errcheck // ends sendAll, if it still reads
	if errors.Is(err, errClientGone) {
		return nil // of one connection; kubectl would end the others, too, if it was told
	}
	return err
}

// forwardLinger is how long a client may go on to send after the pod has ended
// its side.
const forwardLinger = 30 * time.Second

// linger waits until the client has said everything and the node has handed it
// over: closed before, the stream would drop what is on its way.
func (f *forwarding) linger(c Conn, up <-chan error) {
	t := time.NewTimer(forwardLinger)
	defer t.Stop()
	select {
	case err := <-up:
		if err != nil {
			return
		}
	case <-f.ctx.Done():
		return
	case <-t.C:
		return
	}
	select {
	case <-c.Context().Done():
	case <-f.ctx.Done():
	case <-t.C:
	}
}

// sendAll carries what the client sends. nil at its end, which the node is told.
func sendAll(ctx context.Context, c Conn, from io.Reader) error {
	buffer := make([]byte, chunk)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if err := c.Send(ctx, kv.ChannelStdin, buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return c.CloseSend()
		}
		if err != nil {
			return err
		}
	}
}

// receiveAll carries what the node sends, to its end.
func receiveAll(ctx context.Context, c Conn, to io.Writer) error {
	for {
		_, data, err := c.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := to.Write(data); err != nil {
			return err
		}
	}
}

// tunnelBuffer holds one frame of SPDY with its headers.
const tunnelBuffer = chunk + 64

// A tunnel is a net.Conn inside binary messages of a WebSocket.
type tunnel struct {
	*websocket.Conn
	message io.Reader // that is being read
	writing sync.Mutex
	closing sync.Once
}

var _ net.Conn = (*tunnel)(nil)

// Read implements net.Conn.
func (t *tunnel) Read(p []byte) (int, error) {
	for {
		if t.message == nil {
			kind, message, err := t.NextReader()
			if closed := (*websocket.CloseError)(nil); errors.As(err, &closed) && closed.Code == websocket.CloseNormalClosure {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("a message that is not binary")
			}
			t.message = message
		}
		n, err := t.message.Read(p)
		if errors.Is(err, io.EOF) {
			t.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (t *tunnel) Write(p []byte) (int, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	if err := t.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements net.Conn.
func (t *tunnel) Close() (err error) {
	t.closing.Do(func() {
		normal := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = t.WriteControl(websocket.CloseMessage, normal, time.Now().Add(time.Second)) //nolint:errcheck // the client has hung up
		err = t.Conn.Close()
	})
	return err
}

// SetDeadline implements net.Conn.
func (t *tunnel) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}
