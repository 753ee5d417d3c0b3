package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pawl-project/pawl/schema"
)

// idle accepts and waits for the stream's end.
func idle(ctx context.Context, _ StreamRequest, s *Stream) error {
	if err := s.Accept(); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestStreamIsRefusedInTheNodesWords(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		text  string
		class error
	}{
		"worded":  {StreamErrorf(schema.ErrRefused, "container %q is waiting", "x"), `container "x" is waiting`, schema.ErrRefused},
		"classed": {fmt.Errorf("no such pod: %w", schema.ErrNotFound), "no such pod: not found", schema.ErrNotFound},
		"a bug":   {errors.New("oops"), "oops", nil},
		"long":    {errors.New(strings.Repeat("x", 1<<20)), strings.Repeat("x", 16<<10), nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := newStreamRig(t, func(context.Context, StreamRequest, *Stream) error { return c.err })
			_, err := g.streams.Open(t.Context(), "n1", StreamRequest{Verb: StreamLog})
			var e *StreamError
			if !errors.As(err, &e) || e.Text != c.text || c.class != nil && !errors.Is(err, c.class) || ErrorClass(err) != ErrorClass(c.class) {
				t.Errorf("got %.100v", err)
			}
		})
	}
}

func TestStreamBreaksOffInTheNodesWords(t *testing.T) {
	g := newStreamRig(t, func(ctx context.Context, _ StreamRequest, s *Stream) error {
		if err := s.Send(ctx, ChannelStdout, []byte("some")); err != nil {
			return err
		}
		return StreamErrorf(schema.ErrUnavailable, "the disk is gone")
	})
	s := g.open(StreamRequest{})
	data, err := all(t.Context(), s)
	if string(data) != "some" || !errors.Is(err, schema.ErrUnavailable) || err.Error() != "the disk is gone" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestStreamToNobody(t *testing.T) {
	g := newStreamRig(t, nil)
	began := time.Now()
	_, err := g.streams.Open(t.Context(), "n1", StreamRequest{})
	if !errors.Is(err, schema.ErrUnavailable) || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	if _, err := g.streams.Open(t.Context(), "a.b", StreamRequest{}); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a name that is none: %v", err)
	}
	eventually(t, "nothing is open", func() bool { return g.streams.Count() == 0 })
}

func TestStreamOpeningIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	g := newStreamRig(t, func(ctx context.Context, _ StreamRequest, _ *Stream) error {
		cancel() // the opening
		<-ctx.Done()
		close(ended)
		return nil
	})
	if _, err := g.streams.Open(ctx, "n1", StreamRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended // the node is told
	eventually(t, "nothing is open", func() bool { return g.streams.Count() == 0 })
}

func TestStreamsAreBounded(t *testing.T) {
	g := newStreamRig(t, idle)
	g.streams.perNode, g.streams.most = 3, 4
	other := g.inProcess("_INBOX.n2")
	run(t, func(ctx context.Context) error { return ServeStreams(ctx, other, "n2", idle) })
	listening(t, other)
	first := mustOpen(t, g.streams, "n1")
	mustOpen(t, g.streams, "n1")
	mustOpen(t, g.streams, "n1")
	if _, err := g.streams.Open(t.Context(), "n1", StreamRequest{}); !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "3 logs, commands and connections open on node n1") {
		t.Errorf("a fourth of one node: %v", err)
	}
	mustOpen(t, g.streams, "n2")
	if _, err := g.streams.Open(t.Context(), "n2", StreamRequest{}); !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "4 logs, commands and connections") {
		t.Errorf("a fifth in all: %v", err)
	}
	first.Close(nil)
	eventually(t, "there is room again", func() bool { return g.streams.Count() == 3 })
	mustOpen(t, g.streams, "n2")
}

// All windows together stay below what a server keeps for a slow client.
func TestWindowsFitTheServer(t *testing.T) {
	total := 0
	for n := range streamsMost {
		total += windowOf(n + 1)
	}
	if total > 56<<20 {
		t.Errorf("%d MiB may be on their way", total>>20)
	}
}

// A node bounds its streams also when the control plane does not.
func TestNodeBoundsItsStreams(t *testing.T) {
	g := newStreamRig(t, nil)
	v := &streamServer{conn: g.node, node: "n1", handle: idle, prefix: streamDown("n1", ""), ping: streamPing, silence: streamSilence, most: 2, open: map[string]*Stream{}}
	run(t, v.run)
	listening(t, g.node)
	mustOpen(t, g.streams, "n1")
	mustOpen(t, g.streams, "n1")
	if _, err := g.streams.Open(t.Context(), "n1", StreamRequest{}); !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "on node n1 already") {
		t.Errorf("a third: %v", err)
	}
}

// Whoever goes, the other side's stream ends.
func TestStreamEndsWhenASideIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(g *streamRig, s *Stream)
		atNode bool // the node's side is looked at, else the control plane's
	}{
		"closed":                   {func(_ *streamRig, s *Stream) { s.Close(nil) }, true},
		"closed with an error":     {func(_ *streamRig, s *Stream) { s.Close(errors.New("enough")) }, true},
		"control plane vanished":   {func(g *streamRig, _ *Stream) { g.streams.conn.nc.Close() }, true},
		"node vanished":            {func(g *streamRig, _ *Stream) { g.node.nc.Close() }, false},
		"server restarted":         {func(g *streamRig, _ *Stream) { g.stop(); g.start() }, true},
		"server restarted, its":    {func(g *streamRig, _ *Stream) { g.stop(); g.start() }, false},
		"subscription of the node": {func(g *streamRig, _ *Stream) { g.forgetNode() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			g := newStreamRig(t, nil)
			// By TCP: connections in process end with the server they are of.
			g.node = g.connect()
			g.streams = NewStreams(g.connect())
			g.streams.ping = 50 * time.Millisecond
			run(t, g.streams.Run)
			v := &streamServer{conn: g.node, node: "n1", prefix: streamDown("n1", ""), ping: 50 * time.Millisecond, silence: streamSilence, most: 2, open: map[string]*Stream{}}
			v.handle = func(ctx context.Context, r StreamRequest, s *Stream) error {
				err := idle(ctx, r, s)
				ended <- err
				return err
			}
			run(t, v.run)
			listening(t, g.node)
			s := mustOpen(t, g.streams, "n1")
			c.end(g, s)
			if c.atNode {
				if err := <-ended; err == nil {
					t.Error("no reason given")
				}
				return
			}
			if _, _, err := s.Recv(t.Context()); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("Recv: %v", err)
			}
			eventually(t, "it is forgotten", func() bool { return g.streams.Count() == 0 })
		})
	}
}

// forgetNode is an agent that is restarted: its connection is there, but not its streams.
func (g *streamRig) forgetNode() {
	g.node.nc.Close()
	again := g.connect()
	run(g.t, func(ctx context.Context) error { return ServeStreams(ctx, again, "n1", idle) })
	listening(g.t, again)
}

// A side that says nothing is taken for dead, though the server is there.
func TestSilenceEndsAStream(t *testing.T) {
	g := newStreamRig(t, nil)
	g.streams.ping, g.streams.silence = 100*time.Millisecond, 2*time.Second // in which the node accepts
	s, err := g.lying(func(l *liar) { l.send(frameAccept) })
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Recv(t.Context())
	if !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "nothing was heard") {
		t.Errorf("got %v", err)
	}
}

// A writer waits for a reader who does not read, in one window of memory, and
// no message is dropped.
func TestSlowReaderHoldsTheWriterBack(t *testing.T) {
	var sent atomic.Int64
	block := make([]byte, 20_000)
	const total = 10 << 20
	g := newStreamRig(t, func(ctx context.Context, _ StreamRequest, s *Stream) error {
		for sent.Load() < total {
			if err := s.Send(ctx, ChannelStdout, block); err != nil {
				return err
			}
			sent.Add(int64(len(block)))
		}
		return nil
	})
	s := g.open(StreamRequest{})
	last := int64(-1)
	eventually(t, "the writer waits", func() bool {
		<-time.After(30 * time.Millisecond)
		now := sent.Load()
		still := now == last && now > 0
		last = now
		return still
	})
	if last > windowMost {
		t.Errorf("%d bytes were sent to a reader who does not read", last)
	}
	data, err := all(t.Context(), s)
	if err != nil || int64(len(data)) != sent.Load() {
		t.Errorf("%d bytes of %d: %v", len(data), sent.Load(), err)
	}
}

// Reports of the node do not wait behind its streams.
func TestReportsPassStreams(t *testing.T) {
	g := newStreamRig(t, func(ctx context.Context, _ StreamRequest, s *Stream) error {
		block := make([]byte, streamData)
		for s.Send(ctx, ChannelStdout, block) == nil {
		}
		return nil
	})
	door := NewDoor(g.inProcess(""), func(n schema.NodeName, cause string) { t.Errorf("dropped: %s", cause) })
	run(t, func(ctx context.Context) error {
		return door.Run(ctx, func(r Request) { door.Answer(r, Answer{}) })
	})
	agent := NewAgent(g.node, "n1")
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 8 {
		s := g.open(StreamRequest{})
		if i < 4 { // the others are not read
			wg.Go(func() {
				for {
					if _, _, err := s.Recv(ctx); err != nil {
						return
					}
				}
			})
		}
	}
	longest := time.Duration(0)
	for range 50 {
		began := time.Now()
		if err := agent.ReportPods(t.Context(), []schema.PodReport{{Node: "n1"}}); err != nil {
			t.Error(err)
		}
		longest = max(longest, time.Since(began))
	}
	cancel()
	wg.Wait()
	t.Logf("the longest report took %v", longest)
	if longest > 5*time.Second {
		t.Errorf("a report took %v", longest)
	}
}

// The newest size overtakes input that the command does not read.
func TestResizeOvertakes(t *testing.T) {
	got := make(chan TermSize, 1)
	g := newStreamRig(t, func(ctx context.Context, _ StreamRequest, s *Stream) error {
		if err := s.Accept(); err != nil {
			return err
		}
		for {
			select {
			case size := <-s.Resizes():
				if size.Width == 132 {
					got <- size
					return nil
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	s := g.open(StreamRequest{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Send(ctx, ChannelStdin, make([]byte, 2*windowMost)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Send: %v", err)
	}
	for _, width := range []uint16{80, 132} {
		text, _ := json.Marshal(TermSize{Width: width, Height: 40})
		if err := s.Send(t.Context(), ChannelResize, text); err != nil {
			t.Fatal(err)
		}
	}
	if size := <-got; size != (TermSize{132, 40}) {
		t.Errorf("got %v", size)
	}
	if err := s.Send(t.Context(), ChannelResize, make([]byte, resizeMost+1)); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a size that is none: %v", err)
	}
}

// Nothing of ended streams is left: no subscription, no goroutine.
func TestEndedStreamsLeaveNothing(t *testing.T) {
	g := newStreamRig(t, func(ctx context.Context, r StreamRequest, s *Stream) error {
		if r.Verb == StreamLog {
			return StreamErrorf(schema.ErrRefused, "no")
		}
		return idle(ctx, r, s)
	})
	before, subs := g.streams.conn.nc.NumSubscriptions(), g.node.nc.NumSubscriptions()
	for range 50 {
		s := g.open(StreamRequest{Verb: StreamExec})
		g.streams.Open(t.Context(), "n1", StreamRequest{Verb: StreamLog})
		s.Close(nil)
	}
	eventually(t, "nothing is left", func() bool {
		return g.streams.Count() == 0 && g.streams.conn.nc.NumSubscriptions() == before && g.node.nc.NumSubscriptions() == subs
	})
	g.streams.mu.Lock()
	defer g.streams.mu.Unlock()
	if len(g.streams.ofNode) != 0 {
		t.Errorf("nodes are remembered: %v", g.streams.ofNode)
	}
}

// After the end of Run nothing is open and nothing can be opened.
func TestStreamsEndWithRun(t *testing.T) {
	g := newStreamRig(t, idle)
	streams := NewStreams(g.inProcess(""))
	stop := run(t, streams.Run)
	s := mustOpen(t, streams, "n1")
	stop()
	if _, _, err := s.Recv(t.Context()); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("Recv: %v", err)
	}
	if _, err := streams.Open(t.Context(), "n1", StreamRequest{}); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("Open: %v", err)
	}
}

// Frames of streams do not come to the door.
func TestDoorDoesNotHearStreams(t *testing.T) {
	g := newStreamRig(t, nil)
	door := NewDoor(g.inProcess(""), func(_ schema.NodeName, cause string) { t.Errorf("the door heard: %s", cause) })
	heard := make(chan Request, 1)
	run(t, func(ctx context.Context) error { return door.Run(ctx, func(r Request) { heard <- r }) })
	eventually(t, "the door listens", func() bool {
		g.node.nc.PublishRequest(upSubject("n1", VerbSync), "_INBOX.n1.x", nil)
		select {
		case <-heard:
			return true
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
	g.node.nc.PublishMsg(&nats.Msg{Subject: streamUp("n1", "x"), Data: []byte("frame")})
	g.node.nc.Flush()
	g.node.nc.PublishRequest(upSubject("n1", VerbNode), "_INBOX.n1.x", nil)
	for r := range heard {
		if r.Verb == VerbNode {
			break
		}
	}
}
