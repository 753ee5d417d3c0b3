package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pawl-project/pawl/schema"
)

// A liar is a node that answers requests for streams as it likes.
type liar struct {
	g      *streamRig
	up     string
	number uint32
}

// send sends a frame with the next number.
func (l *liar) send(k frameKind, rest ...byte) { l.raw(append(appendFrame(nil, k, l.number), rest...)) }

// raw sends anything.
func (l *liar) raw(b []byte) {
	l.number++
	l.g.node.nc.Publish(l.up, b)
}

// lying opens a stream to a node that does what lie does.
func (g *streamRig) lying(lie func(l *liar)) (*Stream, error) {
	g.t.Helper()
	var all sync.WaitGroup
	sub, err := g.node.nc.Subscribe("pawl.down.n1.stream.*", func(m *nats.Msg) {
		if len(m.Data) > 0 && frameKind(m.Data[0]) == frameOpen {
			all.Go(func() { lie(&liar{g: g, up: strings.Replace(m.Subject, "pawl.down", "pawl.up", 1)}) })
		}
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.node.nc.Flush()
	s, err := g.streams.Open(g.t.Context(), "n1", StreamRequest{Verb: StreamLog})
	g.t.Cleanup(func() { sub.Unsubscribe(); all.Wait() })
	return s, err
}

func TestStreamOfALiarEnds(t *testing.T) {
	full := append([]byte{ChannelStdout}, make([]byte, streamData)...)
	for name, lie := range map[string]func(l *liar){
		"more than granted": func(l *liar) {
			for range 2 * windowMost / streamData {
				l.send(frameData, full...)
			}
		},
		"a flood of empty frames": func(l *liar) {
			for range 2 * windowMost / frameCost {
				l.send(frameData, ChannelStdout)
			}
		},
		"a flood of pings": func(l *liar) {
			for range 2 * pingsMost {
				l.send(framePing)
			}
		},
		"credit for nothing": func(l *liar) { l.send(frameCredit, 0, 0, 1, 0) },
		"huge credit":        func(l *liar) { l.send(frameCredit, 0xff, 0xff, 0xff, 0xff) },
		"no credit":          func(l *liar) { l.send(frameCredit, 0, 0, 0, 0) },
		"too large":          func(l *liar) { l.send(frameData, append(full, 1)...) },
		"far too large":      func(l *liar) { l.send(frameData, make([]byte, 3<<20)...) },
		"accepts twice":      func(l *liar) { l.send(frameAccept) },
		"a gap":              func(l *liar) { l.number += 7; l.send(frameData, ChannelStdout, 'x') },
		"again":              func(l *liar) { l.number--; l.send(frameData, ChannelStdout, 'x') },
		"nothing":            func(l *liar) { l.raw(nil) },
		"short":              func(l *liar) { l.raw([]byte{3, 0}) },
		"no kind":            func(l *liar) { l.send(99) },
		"opens":              func(l *liar) { l.send(frameOpen, '{', '}') },
		"stdin":              func(l *liar) { l.send(frameData, ChannelStdin, 'x') },
		"resizes":            func(l *liar) { l.send(frameData, append([]byte{ChannelResize}, `{"width":1}`...)...) },
		"no channel":         func(l *liar) { l.send(frameData, 9, 'x') },
		"after the end":      func(l *liar) { l.send(frameEnd); l.send(frameData, ChannelStdout, 'x') },
		"headers": func(l *liar) {
			m := &nats.Msg{Subject: l.up, Header: nats.Header{"X": {"y"}}, Data: append(appendFrame(nil, frameData, l.number), ChannelStdout, 'x')}
			l.g.node.nc.PublishMsg(m)
		},
		"nonsense at the end": func(l *liar) { l.send(frameClose, []byte("what")...) },
		"clean end after loss": func(l *liar) {
			l.number += 3
			l.send(frameClose, []byte("{}")...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newStreamRig(t, nil)
			s, err := g.lying(func(l *liar) { l.send(frameAccept); lie(l) })
			if err == nil {
				t.Cleanup(func() { s.Close(nil) })
				<-s.Context().Done()
				_, err = all(t.Context(), s)
			}
			if err == nil && name != "after the end" || errors.Is(err, io.EOF) {
				t.Errorf("it ended well: %v", err)
			}
			eventually(t, "the stream is forgotten", func() bool { return g.streams.Count() == 0 })
		})
	}
}

// A node that floods a stream costs no more than some windows, while nobody
// reads, and another node's stream goes on.
func TestFloodCostsOneWindow(t *testing.T) {
	g := newStreamRig(t, nil)
	other := g.inProcess("_INBOX.n2")
	run(t, func(ctx context.Context) error {
		return ServeStreams(ctx, other, "n2", func(ctx context.Context, r StreamRequest, s *Stream) error {
			if err := s.Accept(); err != nil {
				return err
			}
			return echo(ctx, r, s)
		})
	})
	listening(t, other)
	good := mustOpen(t, g.streams, "n2")
	before := heap()
	stop := make(chan struct{})
	s, err := g.lying(func(l *liar) {
		l.send(frameAccept)
		for !closedNow(stop) {
			l.send(frameData, make([]byte, streamData)...)
		}
	})
	if err == nil {
		<-s.Context().Done()
	}
	for range 200 {
		if err := good.Send(t.Context(), ChannelStdin, make([]byte, streamData)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := good.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Two windows, and what NATS has in its own buffers on the way, which is more on
	// a machine that is busy; the flood itself has no end.
	if grown := heap() - before; grown > 48<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	close(stop)
}

func closedNow(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestFrameAcceptedBeforeDataOnly(t *testing.T) {
	g := newStreamRig(t, nil)
	s, err := g.lying(func(l *liar) { l.send(frameData, ChannelStdout, 'x') })
	if err == nil {
		s.Close(nil)
		t.Fatal("data was taken before the node had accepted")
	}
}

// heap is what is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func FuzzStreamFrame(f *testing.F) {
	for _, k := range []frameKind{frameOpen, frameAccept, frameData, frameCredit, frameEnd, frameClose, framePing} {
		f.Add(appendFrame(nil, k, 0))
		f.Add(append(appendFrame(nil, k, 1), 1, 0, 0, 1))
		f.Add(append(appendFrame(nil, k, 1), `{"window":131328,"error":"x","width":3}`...))
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		p, err := parseStreamFrame(m)
		if err != nil {
			if !errors.Is(err, schema.ErrRefused) {
				t.Errorf("class of %v", err)
			}
			return
		}
		for _, node := range []bool{true, false} {
			s := newStream(nil, "", "", windowLeast)
			s.node, s.number, s.accepts = node, p.number, true
			err := s.put(p)
			if s.waiting > s.window || s.credit > s.window && err == nil {
				t.Errorf("%d bytes wait, %d may be sent, of %d", s.waiting, s.credit, s.window)
			}
		}
		if p.kind == frameOpen {
			if o, err := decodeOpening(p.data); err == nil && (o.Window > windowMost || o.Window < windowLeast) {
				t.Errorf("window %d", o.Window)
			}
		}
		if p.kind == frameData {
			again := append(append(appendFrame(nil, frameData, p.number), p.channel), p.data...)
			if string(again) != string(m) {
				t.Error("a frame does not survive")
			}
		}
		if p.kind == frameCredit && binary.BigEndian.Uint32(m[streamHeader:]) != uint32(p.credit) {
			t.Error("credit does not survive")
		}
	})
}

func mustOpen(t *testing.T, s *Streams, n schema.NodeName) *Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	x, err := s.Open(ctx, n, StreamRequest{Verb: StreamLog})
	if err != nil {
		t.Fatal(fmt.Errorf("open: %w", err))
	}
	t.Cleanup(func() { x.Close(nil) })
	return x
}
