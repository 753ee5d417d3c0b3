package kv

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pawl-project/pawl/schema"
)

// A frame of a stream is one NATS message:
//
//	byte 0     kind
//	byte 1–4   number of the frame on its side of the stream, from 0, big-endian;
//	           a gap means that messages were lost, which ends the stream
//	the rest   open    a streamOpening as JSON      control plane, first
//	           accept  nothing                      node, before any data
//	           data    a channel's number, bytes    costs frameCost more than its length
//	           credit  bytes granted, big-endian    what the other side may send beyond what it had
//	           end     nothing                      no more data from this side
//	           close   a streamClosing as JSON      everything is over
//	           ping    nothing                      this side lives
type frameKind byte

const (
	frameOpen frameKind = iota + 1
	frameAccept
	frameData
	frameCredit
	frameEnd
	frameClose
	framePing
)

const (
	streamHeader = 5
	// streamData is how many bytes one frame carries. Larger ones are no faster,
	// and other traffic of the connection waits for one.
	streamData = 32 << 10
	// frameCost is added to a frame's length when it is paid for from the window,
	// so that a flood of empty frames is bounded like one of full ones.
	frameCost = 64
	// streamText bounds what opens or closes a stream, in bytes. A command line
	// may have 128 KiB.
	streamText = 256 << 10
	// resizeMost bounds what a TermSize takes.
	resizeMost = 128
)

// streamOpening is the content of an open frame.
type streamOpening struct {
	Window  int           `json:"window"` // of either direction, in bytes
	Request StreamRequest `json:"request"`
}

// streamClosing is the content of a close frame.
type streamClosing struct {
	Error string `json:"error,omitempty"`
	Class string `json:"class,omitempty"`
}

// A streamFrame is a frame that was read; what does not belong to its kind is zero.
type streamFrame struct {
	kind    frameKind
	number  uint32
	channel byte
	data    []byte // of data, open and close; aliases the message
	credit  int
}

// appendFrame appends a frame's header.
func appendFrame(b []byte, k frameKind, number uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, byte(k)), number)
}

// parseStreamFrame reads a frame. The error wraps schema.ErrRefused.
func parseStreamFrame(m []byte) (streamFrame, error) {
	refuse := func(why string) (streamFrame, error) {
		return streamFrame{}, fmt.Errorf("frame of a stream: %s: %w", why, schema.ErrRefused)
	}
	if len(m) < streamHeader {
		return refuse("too short")
	}
	f := streamFrame{kind: frameKind(m[0]), number: binary.BigEndian.Uint32(m[1:])}
	rest := m[streamHeader:]
	switch f.kind {
	case frameData:
		if len(rest) == 0 {
			return refuse("no channel")
		}
		f.channel, f.data = rest[0], rest[1:]
		if f.channel > ChannelResize {
			return refuse("no such channel")
		}
		if len(f.data) > streamData || f.channel == ChannelResize && len(f.data) > resizeMost {
			return refuse("too large")
		}
	case frameCredit:
		if len(rest) != 4 {
			return refuse("credit of another size")
		}
		n := binary.BigEndian.Uint32(rest)
		if n == 0 || n > windowMost {
			return refuse("credit out of range")
		}
		f.credit = int(n)
	case frameOpen, frameClose:
		if len(rest) > streamText {
			return refuse("too large")
		}
		f.data = rest
	case frameAccept, frameEnd, framePing:
		if len(rest) > 0 {
			return refuse("longer than its kind")
		}
	default:
		return refuse("no such kind")
	}
	return f, nil
}

// decodeOpening reads the content of an open frame.
func decodeOpening(data []byte) (streamOpening, error) {
	var o streamOpening
	if err := json.Unmarshal(data, &o); err != nil {
		return o, fmt.Errorf("request for a stream: %w: %w", err, schema.ErrRefused)
	}
	if o.Window < windowLeast || o.Window > windowMost {
		return o, fmt.Errorf("request for a stream: window of %d bytes: %w", o.Window, schema.ErrRefused)
	}
	return o, nil
}

// encodeClosing puts an error into a close frame; nil: the end is as it should be.
func encodeClosing(err error) []byte {
	var c streamClosing
	if err != nil {
		c.Error, c.Class = err.Error(), ErrorClass(err)
		if s := (*StreamError)(nil); errors.As(err, &s) {
			c.Error = s.Text
		}
		const most = 16 << 10
		c.Error = c.Error[:min(len(c.Error), most)]
		if c.Error == "" {
			c.Error = "no reason given"
		}
	}
	text, _ := json.Marshal(c) //nolint:errcheck // two strings
	return text
}

// decodeClosing is the error that the other side closed with; nil: none.
func decodeClosing(data []byte) error {
	var c streamClosing
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("a stream was closed for a reason that cannot be read: %w", schema.ErrUnavailable)
	}
	if c.Error == "" {
		return nil
	}
	return &StreamError{Text: c.Error, Class: ClassNamed(c.Class)}
}
