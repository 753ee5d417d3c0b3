package kv

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"time"
)

// A streamRig is a server, the control plane's side and one node.
type streamRig struct {
	*testServer
	streams *Streams
	node    *Conn
}

func newStreamRig(t testing.TB, handle StreamHandler) *streamRig {
	t.Helper()
	g := &streamRig{testServer: newServer(t)}
	g.node = g.inProcess("_INBOX.n1")
	g.streams = NewStreams(g.inProcess(""))
	run(t, g.streams.Run)
	if handle != nil {
		run(t, func(ctx context.Context) error { return ServeStreams(ctx, g.node, "n1", handle) })
		listening(t, g.node)
	}
	return g
}

// listening waits until a node's subscription is at the server.
func listening(t testing.TB, c *Conn) {
	t.Helper()
	eventually(t, "the node listens", func() bool { return c.nc.NumSubscriptions() > 0 })
	if err := c.nc.FlushTimeout(10 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func (g *streamRig) open(r StreamRequest) *Stream {
	g.t.Helper()
	s, err := g.streams.Open(g.t.Context(), "n1", r)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { s.Close(nil) })
	return s
}

// all receives until the end.
func all(ctx context.Context, s *Stream) (data []byte, err error) {
	for {
		_, part, err := s.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return data, err
		}
		data = append(data, part...)
	}
}

// echo sends back what it gets.
func echo(ctx context.Context, _ StreamRequest, s *Stream) error {
	for {
		_, data, err := s.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(ctx, ChannelStdout, data); err != nil {
			return err
		}
	}
}

func TestStreamEchoes(t *testing.T) {
	g := newStreamRig(t, func(ctx context.Context, r StreamRequest, s *Stream) error {
		if err := s.Accept(); err != nil {
			return err
		}
		return echo(ctx, r, s)
	})
	s := g.open(StreamRequest{Verb: StreamExec})
	sent := make([]byte, 3<<20+17)
	rand.Read(sent)
	go func() {
		s.Send(t.Context(), ChannelStdin, sent)
		s.CloseSend()
	}()
	got, err := all(t.Context(), s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back of %d: %v", len(got), len(sent), err)
	}
	s.Close(nil)
	eventually(t, "nothing is open", func() bool { return g.streams.Count() == 0 })
}

func BenchmarkStream(b *testing.B) {
	block := make([]byte, 32<<10)
	g := newStreamRig(b, func(ctx context.Context, _ StreamRequest, s *Stream) error {
		for {
			if err := s.Send(ctx, ChannelStdout, block); err != nil {
				return nil
			}
		}
	})
	s := g.open(StreamRequest{Verb: StreamLog})
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, _, err := s.Recv(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestStreamEndsBeforeItsOpeningIsSeen is a short log on a busy machine: all of
// it, the stream's end too, is there before the one who opened it looks.
func TestStreamEndsBeforeItsOpeningIsSeen(t *testing.T) {
	for range 50 { // of two things that have happened select takes either
		s := newStream(nil, "", "", windowMost)
		for i, f := range []streamFrame{
			{kind: frameAccept},
			{kind: frameData, channel: ChannelStdout, data: []byte("all of it")},
			{kind: frameEnd},
			{kind: frameClose, data: encodeClosing(nil)},
		} {
			f.number = uint32(i)
			if err := s.put(f); err != nil {
				t.Fatal(err)
			}
		}
		opened, err := s.answered(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if data, err := all(t.Context(), opened); string(data) != "all of it" || err != nil {
			t.Fatalf("%q, %v", data, err)
		}
	}
}

// An endingContext is done at the very moment when somebody is about to wait for
// it; atThat happens with it.
type endingContext struct {
	context.Context
	atThat func()
}

func (c endingContext) Done() <-chan struct{} {
	c.atThat()
	return c.Context.Done()
}

// TestRecvSaysWhyTheStreamIsOver is a stream that breaks off while its receiver
// is given up, often because of that: the stream's own end says more.
func TestRecvSaysWhyTheStreamIsOver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // of two things that have happened select takes either
		s := newStream(nil, "", "", windowMost)
		broke := errors.New("the connection broke")
		_, _, err := s.Recv(endingContext{ctx, func() { s.finish(broke, false) }})
		if !errors.Is(err, broke) {
			t.Fatalf("%v", err)
		}
	}
}

// TestRecvHasWhatCameBeforeTheEnd is the node's side, where a handler's context
// is the stream's: what came before the end is received all the same.
func TestRecvHasWhatCameBeforeTheEnd(t *testing.T) {
	for range 50 { // see above
		s := newStream(nil, "", "", windowMost)
		s.node = true
		ctx := endingContext{s.Context(), func() {
			for i, f := range []streamFrame{
				{kind: frameData, channel: ChannelStdin, data: []byte("all of it")},
				{kind: frameEnd},
				{kind: frameClose, data: encodeClosing(nil)},
			} {
				f.number = uint32(i)
				if err := s.put(f); err != nil {
					t.Error(err)
				}
			}
		}}
		if data, err := all(ctx, s); string(data) != "all of it" || err != nil {
			t.Fatalf("%q, %v", data, err)
		}
	}
}
