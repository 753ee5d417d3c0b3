package stream

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/pawl-project/pawl/schema/kv"
)

// spdyProtocols are the versions that are spoken. Since v3 a terminal can be
// resized; since v4 the end is told as a Status.
var spdyProtocols = []string{
	remotecommand.StreamProtocolV4Name, remotecommand.StreamProtocolV3Name,
	remotecommand.StreamProtocolV2Name, remotecommand.StreamProtocolV1Name,
}

// spdyStreams is how long a client may take to make the streams of a command.
const spdyStreams = 30 * time.Second

// A spdySession is a session over SPDY: one stream of it for each of the
// command's, made by the client.
type spdySession struct {
	conn     httpstream.Connection
	raw      net.Conn // beneath conn
	protocol string
	streams  map[string]httpstream.Stream // by type; complete before anybody looks
}

// spdyType is the stream type of each channel.
var spdyType = map[byte]string{kv.ChannelStdout: corev1.StreamTypeStdout, kv.ChannelStderr: corev1.StreamTypeStderr}

// upgradeSPDY waits for the streams that belong to the request.
func upgradeSPDY(w http.ResponseWriter, r *http.Request, request kv.ExecRequest) (session, error) {
	protocol, err := httpstream.Handshake(r, w, spdyProtocols)
	if err != nil {
		return nil, err // the client was told
	}
	s := &spdySession{protocol: protocol, streams: map[string]httpstream.Stream{}}
	made := make(chan madeStream)
	gaveUp := make(chan struct{})
	defer close(gaveUp)
	h := &hijacker{ResponseWriter: w}
	s.conn = spdy.NewResponseUpgrader().UpgradeResponse(h, r, func(x httpstream.Stream, replied <-chan struct{}) error {
		select {
		case made <- madeStream{x, replied}:
			return nil
		case <-gaveUp:
			return errors.New("no stream is missing")
		}
	})
	if s.conn == nil {
		return nil, errors.New("the connection cannot be upgraded to SPDY")
	}
	s.raw = h.conn
	if err := s.gather(made, s.wanted(request)); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// A hijacker keeps the connection that is taken from a response.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (conn net.Conn, rw *bufio.ReadWriter, err error) {
	h.conn, rw, err = http.NewResponseController(h.ResponseWriter).Hijack()
	return h.conn, rw, err
}

// A madeStream is a stream that the client has made; it can be used once the
// client has the reply.
type madeStream struct {
	httpstream.Stream
	replied <-chan struct{}
}

// wanted are the types of the streams that a request has.
func (s *spdySession) wanted(r kv.ExecRequest) map[string]bool {
	resizes := s.protocol == remotecommand.StreamProtocolV4Name || s.protocol == remotecommand.StreamProtocolV3Name
	wanted := map[string]bool{corev1.StreamTypeError: true}
	for t, there := range map[string]bool{
		corev1.StreamTypeStdin: r.Stdin, corev1.StreamTypeStdout: r.Stdout, corev1.StreamTypeStderr: r.Stderr,
		corev1.StreamTypeResize: r.TTY && resizes,
	} {
		if there {
			wanted[t] = true
		}
	}
	return wanted
}

// gather waits for one stream of each type.
func (s *spdySession) gather(made <-chan madeStream, wanted map[string]bool) error {
	expired := time.NewTimer(spdyStreams)
	defer expired.Stop()
	for len(wanted) > 0 {
		select {
		case x := <-made:
			kind := x.Headers().Get(corev1.StreamType)
			if !wanted[kind] {
				return fmt.Errorf("the client made a stream of type %q, which does not belong to the command", kind)
			}
			delete(wanted, kind)
			select {
			case <-x.replied:
			case <-s.conn.CloseChan():
			}
			s.streams[kind] = x.Stream
		case <-s.conn.CloseChan():
			return errors.New("the client hung up before it had made its streams")
		case <-expired.C:
			return errors.New("the client did not make its streams in time")
		}
	}
	return nil
}

// serve implements session.
func (s *spdySession) serve(in input) {
	var readers sync.WaitGroup
	if stdin := s.streams[corev1.StreamTypeStdin]; stdin != nil {
		readers.Go(func() {
			if eachPart(&clientInput{Stream: stdin, session: s.conn}, make([]byte, chunk), in.stdin) == nil {
				in.stdinEnd()
			}
		})
	}
	if sizes := s.streams[corev1.StreamTypeResize]; sizes != nil {
		readers.Go(func() { readSizes(sizes, in) })
	}
	<-s.conn.CloseChan()
	readers.Wait()
}

// errClientGone is why a connection is cut off instead of ended.
var errClientGone = errors.New("the client went without an end")

// A clientInput is what the client sends on a stream. SPDY's Read tells of every
// end as if the client had said all it had to say.
type clientInput struct {
	httpstream.Stream
	session httpstream.Connection
	closed  atomic.Bool // by this side, too
}

// Read implements io.Reader.
func (x *clientInput) Read(p []byte) (int, error) {
	n, err := x.Stream.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	select {
	case <-x.session.CloseChan(): // it is closed before its streams are
		return n, errClientGone
	default:
	}
	// That this side closes the stream is said before it is done, and so asked last.
	if s, ok := x.Stream.(interface{ IsFinished() bool }); ok && s.IsFinished() && !x.closed.Load() {
		return n, errClientGone // neither side has ended its half: it was reset
	}
	return n, err
}

// readSizes hands on JSON values until there are no more.
func readSizes(r httpstream.Stream, in input) {
	d := json.NewDecoder(r)
	for {
		var size json.RawMessage
		if err := d.Decode(&size); err != nil {
			return
		}
		in.resize(bytes.TrimSpace(size))
	}
}

// write implements session.
func (s *spdySession) write(channel byte, data []byte) error {
	x := s.streams[spdyType[channel]]
	if x == nil || len(data) == 0 {
		return nil // nobody asked for it
	}
	_, err := x.Write(data)
	return err
}

// ping implements session. A ping of SPDY would wait for its answer, which is not
// read while the input is not; an empty frame is a sign of life, too.
func (s *spdySession) ping() error {
	_, err := s.streams[corev1.StreamTypeError].Write(nil)
	return err
}

// finish implements session.
func (s *spdySession) finish(status metav1.Status) {
	text := []byte(status.Message)
	if s.protocol == remotecommand.StreamProtocolV4Name {
		text, _ = json.Marshal(&status) //nolint:errcheck // a Status always has a JSON form
	} else if status.Status == metav1.StatusSuccess {
		text = nil
	}
	if len(text) > 0 {
		if _, err := s.streams[corev1.StreamTypeError].Write(text); err != nil {
			s.close()
			return
		}
	}
	for _, x := range s.streams {
		_ = x.Close() //nolint:errcheck // the client has hung up already
	}
}

// close implements session. To say goodbye in SPDY would wait for a client that
// does not read, so the connection is cut first.
func (s *spdySession) close() {
	s.raw.Close()
	s.conn.Close()
}
