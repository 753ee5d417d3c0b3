package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Somebody who is attached to a container holds it back as a terminal would:
// when tapPieces pieces of output wait for them, the container's output waits,
// too, and its log with it. Whoever takes no piece for tapPatience is cut off, so
// a reader that hangs costs a container one second, once. Other runtimes wait for
// ever, or lose output silently.
const (
	tapPieces   = 16 // of at most readSize bytes
	tapPatience = time.Second
)

// A tap takes a container's output beside its log.
type tap struct {
	pieces chan piece
	over   chan struct{} // closed when nobody takes pieces any more
	slow   chan struct{} // closed when it was cut off
	end    sync.Once     // closes slow
}

// A piece is some output as it came.
type piece struct {
	stream string
	data   []byte
}

// tell gives output to all taps.
func (w *logWriter) tell(stream string, data []byte) {
	w.mu.Lock()
	if len(w.taps) == 0 {
		w.mu.Unlock()
		return
	}
	taps := make([]*tap, 0, len(w.taps))
	for t := range w.taps {
		taps = append(taps, t)
	}
	w.mu.Unlock()
	p := piece{stream, append([]byte(nil), data...)} // shared: nobody writes to it
	for _, t := range taps {
		t.put(p)
	}
}

func (t *tap) put(p piece) {
	select {
	case t.pieces <- p:
		return
	case <-t.slow:
		return
	default:
	}
	patience := time.NewTimer(tapPatience)
	defer patience.Stop()
	select {
	case t.pieces <- p:
	case <-t.over:
	case <-t.slow:
	case <-patience.C:
		t.end.Do(func() { close(t.slow) })
	}
}

func (w *logWriter) tap() *tap {
	t := &tap{pieces: make(chan piece, tapPieces), over: make(chan struct{}), slow: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taps == nil {
		w.taps = map[*tap]struct{}{}
	}
	w.taps[t] = struct{}{}
	return t
}

func (w *logWriter) untap(t *tap) {
	close(t.over)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.taps, t)
}

// Attach implements nodeagent.Attacher.
func (r *Runtime) Attach(ctx context.Context, id string, a nodeagent.Attachment) error {
	rec, ok, err := r.record(ctx, id)
	if err != nil {
		return err
	}
	var l *containerLog
	if ok {
		if l, err = r.reading(ctx, rec); err != nil {
			return err
		}
	}
	if l == nil {
		return fmt.Errorf("attach to container %s: it does not run: %w", id, schema.ErrNotFound)
	}
	t := l.writer.tap()
	defer l.writer.untap(t)
	if err := a.Attached(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	x := &attachment{Attachment: a, r: r, rec: rec, fed: make(chan struct{})}
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { x.feed(ctx) })
	beside.Go(func() { x.resize(ctx) })
	return x.output(ctx, t, l.done)
}

// reading is what reads a running container's output; nil: it does not run.
func (r *Runtime) reading(ctx context.Context, rec record) (*containerLog, error) {
	c, err := r.state(ctx, rec) // after a restart of the agent this begins to read
	if err != nil || c.State != pod.ContainerRunning {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logs[rec.ID], nil
}

// An attachment is one while it lasts.
type attachment struct {
	nodeagent.Attachment
	r   *Runtime
	rec record
	fed chan struct{} // closed when its input has ended, and it is to end with it
}

// output hands on what comes, until the container's end.
func (x *attachment) output(ctx context.Context, t *tap, done <-chan struct{}) error {
	for {
		if closed(t.slow) {
			return kv.StreamErrorf(schema.ErrUnavailable, "cut off: for %s no output was taken, and the container must not wait for that; attach again", tapPatience)
		}
		select {
		case p := <-t.pieces:
			if err := x.write(p); err != nil {
				return err
			}
			continue
		case <-t.slow:
			continue
		case <-x.fed:
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		// What came before the end.
		for {
			select {
			case p := <-t.pieces:
				if err := x.write(p); err != nil {
					return err
				}
			default:
				return nil
			}
		}
	}
}

func (x *attachment) write(p piece) error {
	to := x.Stdout
	if p.stream == streamNames[1] {
		to = x.Stderr
	}
	if to == nil {
		return nil
	}
	_, err := to.Write(p.data)
	return err
}

// feed carries input. What several people type at one time is mixed, as with
// other runtimes.
func (x *attachment) feed(ctx context.Context) {
	if x.Stdin == nil {
		return
	}
	f := x.openInput()
	if in := f; in != nil {
		// What came before the end still goes to a process that takes it.
		stop := context.AfterFunc(ctx, func() { in.SetWriteDeadline(time.Now().Add(tapPatience)) })
		defer stop()
	}
	for {
		data, err := x.Stdin(ctx)
		if err == nil && f != nil {
			if _, err := f.Write(data); errors.Is(err, unix.EPIPE) {
				f.Close()
				f = nil // the process is ending, or has closed its input: the rest goes nowhere
			}
		}
		if err == nil {
			continue
		}
		f.Close()
		x.endInput(f != nil, errors.Is(err, io.EOF))
		return
	}
}

// openInput opens the container's input for writing; nil when it has none, or
// no more.
func (x *attachment) openInput() *os.File {
	if x.rec.stdin == "" {
		return nil
	}
	f, err := os.OpenFile(x.r.inputPath(x.rec.uid, x.rec.ID), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil // it was for one attachment, which is over
	}
	return f
}

// endInput does what the end of an attachment's input means. Input that is for
// one attachment is over with it, however that ended. A terminal has no end: as
// with other runtimes its input goes on, and one can attach again.
func (x *attachment) endInput(had, told bool) {
	if x.rec.stdin == stdinOnce && !x.rec.tty && had {
		if err := x.r.endInput(x.rec); err != nil {
			x.r.log.Warn("the end of a container's input cannot be told", "container", x.rec.ID, "err", err)
		}
		return
	}
	if told {
		close(x.fed)
	}
}

// resize keeps the terminal as large as the other side's.
func (x *attachment) resize(ctx context.Context) {
	if !x.rec.tty || x.Resize == nil {
		return
	}
	for {
		select {
		case s := <-x.Resize:
			_, err := x.r.client.TaskService().ResizePty(ctx, &tasks.ResizePtyRequest{
				ContainerID: x.rec.ID, Width: uint32(s.Width), Height: uint32(s.Height),
			})
			if err != nil && ctx.Err() == nil {
				x.r.log.Debug("resize a terminal", "container", x.rec.ID, "err", oneLine(errgrpc.ToNative(err)))
			}
		case <-ctx.Done():
			return
		}
	}
}
