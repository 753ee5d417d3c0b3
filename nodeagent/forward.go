package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Forwarder is what a Streamer may be besides, for people who want to reach a
// port of a pod from afar.
type Forwarder interface {
	// Dial connects with a TCP port of the pod's loopback address, inside its
	// network namespace. It wraps schema.ErrNotFound when the pod has no sandbox.
	Dial(ctx context.Context, uid types.UID, port uint16) (net.Conn, error)
}

// forwardBuffer is read at once from a connection, in bytes: two frames.
const forwardBuffer = 64 << 10

var forwardBuffers = sync.Pool{New: func() any { b := make([]byte, forwardBuffer); return &b }}

// streamForward carries one connection, each direction until its own end.
func (a *agent) streamForward(ctx context.Context, rt Forwarder, r kv.StreamRequest, s *kv.Stream) error {
	if a.worker(r) == nil {
		return kv.StreamErrorf(schema.ErrNotFound, "pods %q not found", r.Pod.Name)
	}
	conn, err := rt.Dial(ctx, r.UID, r.Forward.Port)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := s.Accept(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { abort(conn) })()
	var there error
	var g sync.WaitGroup
	g.Go(func() {
		if there = toPod(ctx, conn, s); there != nil {
			abort(conn) // the other direction has no sense any more
		}
	})
	back := fromPod(ctx, conn, s)
	if back != nil {
		abort(conn)
		s.Close(back) // what waits for more input
	}
	g.Wait()
	return errors.Join(back, there)
}

// abort ends a connection so that the pod's program does not take what it heard
// for everything.
func abort(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0) //nolint:errcheck // it may have ended
	}
	conn.Close()
}

// toPod writes what comes to the connection. When the pod takes no more the rest
// is thrown away: what it still says is heard.
func toPod(ctx context.Context, conn net.Conn, s *kv.Stream) error {
	broken := false
	for {
		_, data, err := s.Recv(ctx)
		switch {
		case errors.Is(err, io.EOF):
			if c, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = c.CloseWrite() //nolint:errcheck // it may have ended
			}
			return nil
		case err != nil:
			return err
		}
		if !broken {
			_, err = conn.Write(data)
			broken = err != nil
		}
	}
}

// fromPod sends what the connection brings, and its end.
func fromPod(ctx context.Context, conn net.Conn, s *kv.Stream) error {
	buffer := forwardBuffers.Get().(*[]byte) //nolint:errcheck,forcetypeassert // it holds nothing else
	defer forwardBuffers.Put(buffer)
	for {
		n, err := conn.Read(*buffer)
		if n > 0 {
			if err := s.Send(ctx, kv.ChannelStdout, (*buffer)[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return s.CloseSend()
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("the connection broke: %w: %w", err, schema.ErrUnavailable)
		}
	}
}
