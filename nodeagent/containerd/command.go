package containerd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// hangUpGrace is how long a command of a stream has to end after it was told
// that nobody is there any more.
const hangUpGrace = time.Second

// Command implements nodeagent.Streamer. A command whose stream ends is ended
// with all of its session: by HUP when it has a terminal, else by TERM, and
// after a second by KILL. Kubernetes leaves one without a terminal running, but
// nobody would read its output or its exit code, and it would hold its pipes for
// ever. What a command leaves behind when it ends by itself is left alone.
func (r *Runtime) Command(ctx context.Context, id string, c nodeagent.Command) (int, error) {
	x, err := r.newExecution(ctx, id, c)
	if err != nil {
		return 0, err
	}
	x.grace, x.hangUp = hangUpGrace, unix.SIGTERM
	if c.TTY {
		x.hangUp = unix.SIGHUP
	}
	code, err := x.run(ctx)
	if e := (*nodeagent.CommandError)(nil); err != nil && !errors.As(err, &e) {
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return code, err
}

// An execution is one command in a container. Its FIFOs lie beside the
// container's, under a name that tells of both: after a crash they show what to end.
type execution struct {
	nodeagent.Command
	r    *Runtime
	rec  record
	exec string
	base string // of its FIFOs' paths

	// How it is ended when its context is: hangUp to its session, and KILL after
	// grace; zero: KILL at once.
	hangUp unix.Signal
	grace  time.Duration

	pid       int
	processes []seenProcess // of its session, as they were when it was told to end

	streams []*os.File // the reading ends of its output
	copies  sync.WaitGroup
	exited  chan struct{} // closed when it has ended
	beside  sync.WaitGroup
}

func (r *Runtime) newExecution(ctx context.Context, id string, c nodeagent.Command) (*execution, error) {
	if len(c.Argv) == 0 {
		return nil, fmt.Errorf("exec in container %s: no command: %w", id, schema.ErrRefused)
	}
	rec, ok, err := r.record(ctx, id)
	if err != nil {
		return nil, err
	}
	if !ok || rec.ended || rec.StartError != "" {
		return nil, fmt.Errorf("exec in container %s: it does not run: %w", id, schema.ErrNotFound)
	}
	x := &execution{Command: c, r: r, rec: rec, exec: "x" + rand.Text(), exited: make(chan struct{})}
	x.base = filepath.Join(r.podDir(rec.uid), "io", id+"."+x.exec)
	return x, nil
}

func (x *execution) run(ctx context.Context) (code int, err error) {
	if !x.r.begin(x.exec) {
		return 0, fmt.Errorf("the node's agent is stopping: %w", schema.ErrUnavailable)
	}
	defer x.r.finish(x.exec)
	process, err := x.process(ctx)
	if err != nil {
		return 0, err
	}
	request := &tasks.ExecProcessRequest{ContainerID: x.rec.ID, ExecID: x.exec, Spec: process, Terminal: x.TTY}
	defer func() {
		if err != nil {
			x.close()
		}
	}()
	if err := x.open(request); err != nil {
		x.removeFIFOs()
		return 0, err
	}
	service := x.r.client.TaskService()
	if _, err := service.Exec(ctx, request); err != nil {
		return 0, errors.Join(x.fault("make the process", err), x.clear())
	}
	started, err := service.Start(ctx, &tasks.StartRequest{ContainerID: x.rec.ID, ExecID: x.exec})
	if err != nil {
		return 0, errors.Join(x.fault("start it", err), x.clear())
	}
	x.pid = int(started.Pid)
	return x.attend(ctx)
}

// attend carries input and output until the command has ended.
func (x *execution) attend(ctx context.Context) (int, error) {
	beside, cancel := context.WithCancel(ctx)
	x.read()
	x.beside.Go(func() { x.feed(beside) })
	x.beside.Go(func() { x.resize(beside) })
	done, err := x.r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: x.rec.ID, ExecID: x.exec})
	if err == nil {
		close(x.exited)
		x.drain(ctx)
	} else {
		err = x.fault("wait for it", err)
	}
	cancel()
	if err := x.clear(); err != nil {
		// It is ended all the same, later.
		x.r.log.Warn("a command in a container cannot be cleared away yet", "container", x.rec.ID, "err", err)
	}
	x.close()
	x.beside.Wait()
	if err != nil {
		return 0, err
	}
	return int(done.ExitStatus), nil
}

// process is the container's own, with another command.
func (x *execution) process(ctx context.Context) (*anypb.Any, error) {
	c, err := x.r.client.ContainerService().Get(ctx, x.rec.ID)
	if err != nil {
		return nil, x.fault("read the container", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(c.Spec.GetValue(), &spec); err != nil || spec.Process == nil {
		return nil, fmt.Errorf("the container's spec is not valid: %w", schema.ErrRefused)
	}
	p := spec.Process
	p.Args, p.Terminal, p.ConsoleSize = x.Argv, x.TTY, nil
	if x.TTY && !slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
		p.Env = append(p.Env, "TERM=xterm")
	}
	return typeurl.MarshalAnyToProto(p)
}

// open makes the FIFOs and opens the ends that are read here.
func (x *execution) open(request *tasks.ExecProcessRequest) error {
	request.Stdout = x.base + ".out"
	outputs := []string{request.Stdout}
	if !x.TTY {
		request.Stderr = x.base + ".err"
		outputs = append(outputs, request.Stderr)
	}
	if x.Stdin != nil {
		request.Stdin = x.base + ".in"
		if err := unix.Mkfifo(request.Stdin, 0o600); err != nil {
			return fmt.Errorf("make FIFO: %w", err)
		}
	}
	for _, path := range outputs {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return fmt.Errorf("make FIFO: %w", err)
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		x.streams = append(x.streams, f)
	}
	return nil
}

// read copies output, now that the shim has opened its ends.
func (x *execution) read() {
	for i, to := range []io.Writer{x.Stdout, x.Stderr}[:len(x.streams)] {
		x.copies.Go(func() { x.copy(x.streams[i], to) })
	}
}

// copy copies one output to its end. After the command's end it waits a while
// for more, which a process that was left behind may write.
func (x *execution) copy(f *os.File, to io.Writer) {
	buffer := readBuffers.Get().(*[]byte) //nolint:errcheck,forcetypeassert // it holds nothing else
	defer readBuffers.Put(buffer)
	for {
		if closed(x.exited) {
			f.SetReadDeadline(time.Now().Add(drainWithin))
		}
		n, err := f.Read(*buffer)
		if n > 0 && to != nil {
			if _, err := to.Write((*buffer)[:n]); err != nil {
				to = nil // nobody listens; the command must not wait for that
			}
		}
		if err != nil {
			return
		}
	}
}

// drain waits for the end of the output, or the end of ctx.
func (x *execution) drain(ctx context.Context) {
	for _, f := range x.streams {
		f.SetReadDeadline(time.Now().Add(drainWithin)) // for the reads that wait
	}
	ended := make(chan struct{})
	x.beside.Go(func() { x.copies.Wait(); close(ended) })
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// feed carries input until its end, which the command then sees.
func (x *execution) feed(ctx context.Context) {
	if x.Stdin == nil {
		return
	}
	f, err := x.openInput(ctx)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		data, err := x.Stdin(ctx)
		if err == nil {
			_, err = f.Write(data)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			x.endInput(ctx, f)
		case errors.Is(err, unix.EPIPE):
			// It has closed its input. The rest waits where it is.
		}
		f.Close()
		return
	}
}

// openInput opens the writing end of the command's input. The shim opens the
// reading end in its own time, and what is written before that could be lost.
func (x *execution) openInput(ctx context.Context) (*os.File, error) {
	for {
		f, err := os.OpenFile(x.base+".in", os.O_WRONLY|unix.O_NONBLOCK, 0)
		if !errors.Is(err, unix.ENXIO) {
			return f, err
		}
		if !wait(ctx, time.Millisecond) {
			return nil, ctx.Err()
		}
	}
}

// endInput lets the command see the end of its input. A terminal has none: there
// it is the character that people type, twice after a line that is not whole.
func (x *execution) endInput(ctx context.Context, f *os.File) {
	if x.TTY {
		f.Write([]byte{4, 4}) //nolint:errcheck // it may have ended
		return
	}
	f.Close()
	_, err := x.r.client.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: x.rec.ID, ExecID: x.exec, Stdin: true})
	if err = errgrpc.ToNative(err); err != nil && !finished(err) && ctx.Err() == nil {
		x.r.log.Warn("the end of a command's input cannot be told", "container", x.rec.ID, "err", oneLine(err))
	}
}

// resize keeps the terminal as large as the other side's.
func (x *execution) resize(ctx context.Context) {
	if !x.TTY || x.Resize == nil {
		return
	}
	for {
		select {
		case s := <-x.Resize:
			_, err := x.r.client.TaskService().ResizePty(ctx, &tasks.ResizePtyRequest{
				ContainerID: x.rec.ID, ExecID: x.exec, Width: uint32(s.Width), Height: uint32(s.Height),
			})
			if err != nil && ctx.Err() == nil {
				x.r.log.Debug("resize a terminal", "container", x.rec.ID, "err", oneLine(errgrpc.ToNative(err)))
			}
		case <-ctx.Done():
			return
		}
	}
}

// clear ends the command, if it runs still, and has the shim forget it. When
// that fails it is tried again in the background.
func (x *execution) clear() error {
	err := x.end()
	if err != nil {
		x.r.clearLater(x)
		return err
	}
	x.removeFIFOs()
	return nil
}

func (x *execution) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupWithin)
	defer cancel()
	service := x.r.client.TaskService()
	for range 2 {
		_, err := service.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: x.rec.ID, ExecID: x.exec})
		if err = errgrpc.ToNative(err); err == nil || gone(err) || shimClosed(err) {
			return nil
		}
		if x.pid == 0 { // whoever started it was not told
			x.recall(ctx)
		}
		ended := make(chan struct{})
		var waiting sync.WaitGroup
		var failed error
		waiting.Go(func() {
			defer close(ended)
			_, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: x.rec.ID, ExecID: x.exec})
			if err = errgrpc.ToNative(err); err != nil && !finished(err) {
				failed = unavailable("wait for the command's end", err)
			}
		})
		x.hang(ended)
		x.killSession()
		_, err = service.Kill(ctx, &tasks.KillRequest{ContainerID: x.rec.ID, ExecID: x.exec, Signal: uint32(unix.SIGKILL)})
		if err = errgrpc.ToNative(err); err != nil && !finished(err) {
			cancel()
			waiting.Wait()
			return unavailable("end the command", err)
		}
		waiting.Wait()
		if failed != nil {
			return failed
		}
	}
	return nil
}

// close gives back what is open.
func (x *execution) close() {
	for _, f := range x.streams {
		f.Close()
	}
	x.copies.Wait()
}

func (x *execution) removeFIFOs() {
	for _, end := range []string{".in", ".out", ".err"} {
		if err := os.Remove(x.base + end); err != nil && !errors.Is(err, os.ErrNotExist) {
			x.r.log.Warn("a FIFO is left", "path", x.base+end, "err", err)
		}
	}
}

// fault classes an error of a command's start.
func (x *execution) fault(what string, err error) error {
	err = errgrpc.ToNative(err)
	if _, ok := startFault(err); ok {
		text := oneLine(err)
		text = text[strings.Index(text, "OCI runtime exec failed"):]
		code := 126
		if strings.Contains(text, "executable file not found") || strings.Contains(text, "no such file or directory") {
			code = 127
		}
		return &nodeagent.CommandError{Text: text, Code: code}
	}
	if gone(err) || shimClosed(err) {
		return fmt.Errorf("%s: it does not run: %w", what, schema.ErrNotFound)
	}
	return unavailable(what, err)
}
