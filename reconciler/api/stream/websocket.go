package stream

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/pawl-project/pawl/schema/kv"
)

// Every WebSocket message of Kubernetes begins with a channel's number; the
// numbers are those of schema/kv. A message of this one closes the channel that
// its second byte names (v5 alone has it; before that nobody could end stdin).
const closeChannel = remotecommand.StreamClose

// webSocketProtocols are the subprotocols that are spoken, the best first. All
// are alike but for the close signal of v5, the base64 of text messages, and
// what is sent at the end: a Status since v4, before that a text, and only of an
// error.
var webSocketProtocols = []string{
	remotecommand.StreamProtocolV5Name,
	"v4.channel.k8s.io", "v4.base64.channel.k8s.io",
	"channel.k8s.io", "base64.channel.k8s.io",
}

// upgraderFor chooses what to speak with the client.
func upgraderFor(r *http.Request) (upgrader, error) {
	if !websocket.IsWebSocketUpgrade(r) {
		if !httpstream.IsUpgradeRequest(r) {
			return nil, apierrors.NewBadRequest("Upgrade request required")
		}
		return upgradeSPDY, nil
	}
	asked := websocket.Subprotocols(r)
	known := func(p string) bool { return slices.Contains(webSocketProtocols, p) }
	if len(asked) > 0 && !slices.ContainsFunc(asked, known) {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("none of the protocols %q is spoken here, only %q", asked, webSocketProtocols))
	}
	return upgradeWebSocket, nil
}

// webSocketBuffer holds one frame with its headers, so that it is sent at once.
const webSocketBuffer = chunk + 64

func upgradeWebSocket(w http.ResponseWriter, r *http.Request, request kv.ExecRequest) (session, error) {
	u := websocket.Upgrader{
		ReadBufferSize: chunk, WriteBufferSize: webSocketBuffer,
		Subprotocols: webSocketProtocols,
		Error:        notUpgraded,
	}
	conn, err := u.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	protocol := conn.Subprotocol()
	s := &webSocket{
		conn:   conn,
		close5: protocol == remotecommand.StreamProtocolV5Name,
		status: strings.HasPrefix(protocol, "v"),
		base64: strings.Contains(protocol, "base64"),
	}
	// An empty message tells the client that the command runs.
	first := kv.ChannelResult
	switch {
	case request.Stdout:
		first = kv.ChannelStdout
	case request.Stderr:
		first = kv.ChannelStderr
	}
	if err := s.write(first, nil); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// notUpgraded says why a connection cannot speak WebSocket.
func notUpgraded(w http.ResponseWriter, _ *http.Request, code int, reason error) {
	status := metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: metav1.StatusReasonBadRequest, Message: reason.Error()}
	if code == http.StatusForbidden { // a page of another origin
		status.Reason = metav1.StatusReasonForbidden
	}
	writeError(w, &apierrors.StatusError{ErrStatus: status})
}

// A webSocket is a session over WebSocket.
type webSocket struct {
	conn   *websocket.Conn
	close5 bool // has the close signal
	status bool // is told the end as a Status
	base64 bool
}

// serve implements session.
func (s *webSocket) serve(in input) {
	buffer := make([]byte, chunk)
	for {
		_, message, err := s.conn.NextReader()
		if err != nil {
			return
		}
		if err := s.take(message, buffer, in); err != nil {
			return
		}
	}
}

// take hands on one message, however long.
func (s *webSocket) take(message io.Reader, buffer []byte, in input) error {
	var head [1]byte
	if _, err := io.ReadFull(message, head[:]); err != nil {
		return ignoreEOF(err) // an empty message
	}
	channel := head[0]
	if s.base64 {
		channel -= '0'
		message = base64.NewDecoder(base64.StdEncoding, message)
	}
	switch {
	case channel == kv.ChannelStdin:
		return eachPart(message, buffer, in.stdin)
	case channel == kv.ChannelResize:
		n, err := io.ReadFull(message, buffer[:maxResize])
		if err == io.ErrUnexpectedEOF { //nolint:errorlint // ReadFull returns it bare
			in.resize(buffer[:n])
			return nil
		}
		return ignoreEOF(err)
	case channel == closeChannel && s.close5:
		if _, err := io.ReadFull(message, head[:]); err != nil {
			return ignoreEOF(err)
		}
		if head[0] == kv.ChannelStdin {
			in.stdinEnd()
		}
	}
	return nil
}

// maxResize bounds a message that holds a terminal's size, in bytes.
const maxResize = 1 << 10

// eachPart reads to the end in parts.
func eachPart(r io.Reader, buffer []byte, do func([]byte)) error {
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			do(buffer[:n])
		}
		if err != nil {
			return ignoreEOF(err)
		}
	}
}

func ignoreEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // readers return it bare
		return nil
	}
	return err
}

// write implements session.
func (s *webSocket) write(channel byte, data []byte) error {
	if s.base64 {
		text := append([]byte{'0' + channel}, base64.StdEncoding.AppendEncode(nil, data)...)
		return s.conn.WriteMessage(websocket.TextMessage, text)
	}
	w, err := s.conn.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte{channel}); err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Close()
}

// ping implements session. It has no deadline: a write that is cut off would
// break a connection whose client only reads slowly.
func (s *webSocket) ping() error {
	return s.conn.WriteControl(websocket.PingMessage, nil, time.Time{})
}

// finish implements session.
func (s *webSocket) finish(status metav1.Status) {
	text := []byte(status.Message)
	if s.status {
		text, _ = json.Marshal(&status) //nolint:errcheck // a Status always has a JSON form
	}
	var err error
	if s.status || status.Status != metav1.StatusSuccess {
		err = s.write(kv.ChannelResult, text)
	}
	if err == nil {
		normal := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		err = s.conn.WriteControl(websocket.CloseMessage, normal, time.Now().Add(farewell))
	}
	if err != nil {
		s.close()
	}
}

// close implements session.
func (s *webSocket) close() { s.conn.Close() }
