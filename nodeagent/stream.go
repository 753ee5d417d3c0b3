package nodeagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Streamer is what a Runtime may have besides, for people who look at a
// container from afar: its log, and commands in it. Without it an agent refuses
// streams and says so.
type Streamer interface {
	// OpenLog opens the log of a container that was started. An error wraps
	// schema.ErrNotFound when there is no such container.
	OpenLog(ctx context.Context, id string, o *corev1.PodLogOptions) (Log, error)
	// Command runs a command in a running container, as its user, and returns its
	// exit code. When ctx is done it ends the command and everything of its
	// session before it returns. A command that cannot be started is a *CommandError.
	Command(ctx context.Context, id string, c Command) (code int, err error)
}

// A Log is an open log of a container.
type Log interface {
	// Copy writes what was asked for to w: until the end of what there is, or, when
	// the log is followed, until the container has ended and all of it is written.
	// The error is the context's, w's, or wraps schema.ErrUnavailable.
	Copy(ctx context.Context, w io.Writer) error
	// Close gives back what the log holds open.
	Close() error
}

// A Command is what to run and where its input and output go.
type Command struct {
	Argv []string
	TTY  bool // it runs on a terminal of its own; all output goes to Stdout

	// Stdin returns the next input, and io.EOF at its end; nil: there is none. It
	// is called from one goroutine with a context that ends with the command.
	Stdin func(ctx context.Context) ([]byte, error)
	// Stdout and Stderr take output; nil: it is thrown away. While a Write blocks,
	// so does the command. After an error the rest is thrown away.
	Stdout, Stderr io.Writer
	Resize         <-chan kv.TermSize // of the terminal; nil: never
}

// A CommandError is why a command could not be started, in the runtime's words.
type CommandError struct {
	Text string
	Code int // exit code that a shell would give: 127 when there is no such command, else 126
}

// Error is the text.
func (e *CommandError) Error() string { return e.Text }

// Unwrap says that retrying cannot help.
func (e *CommandError) Unwrap() error { return schema.ErrRefused }

// StreamHandler is what a Handler may be besides: it answers requests for streams.
type StreamHandler interface {
	// Stream does what a stream asks for, as a kv.StreamHandler.
	Stream(ctx context.Context, r kv.StreamRequest, s *kv.Stream) error
}

// Stream implements StreamHandler.
func (a *agent) Stream(ctx context.Context, r kv.StreamRequest, s *kv.Stream) error {
	rt, ok := a.cfg.Runtime.(Streamer)
	if !ok {
		return kv.StreamErrorf(schema.ErrRefused, "the runtime of node %s has neither logs nor commands", a.cfg.Node)
	}
	if f, ok := rt.(Forwarder); ok && r.Verb == kv.StreamForward && r.Forward != nil {
		return a.streamForward(ctx, f, r, s)
	}
	status, err := a.shownStatus(r)
	if err != nil {
		return err
	}
	attacher, attaches := rt.(Attacher)
	archiver, archives := rt.(Archiver)
	switch {
	case r.Verb == kv.StreamLog && r.Log != nil:
		return streamLog(ctx, rt, r, status, s)
	case r.Verb == kv.StreamExec && r.Exec != nil && len(r.Exec.Command) > 0:
		return a.streamExec(ctx, rt, r, status, s)
	case attaches && r.Verb == kv.StreamAttach && r.Attach != nil:
		return a.streamAttach(ctx, attacher, r, status, s)
	case archives && r.Verb == kv.StreamArchive && r.Archive != nil:
		return a.streamArchive(ctx, archiver, r, status, s)
	}
	return kv.StreamErrorf(schema.ErrRefused, "a request for a stream that this node does not know")
}

// worker is who keeps the request's pod; nil when there is no such pod.
func (a *agent) worker(r kv.StreamRequest) *worker {
	a.mu.Lock()
	w := a.pods[r.UID]
	a.mu.Unlock()
	if w == nil || w.key != r.Pod || w.isGone() {
		return nil
	}
	return w
}

// shownStatus is what the control plane was last told of the request's container.
func (a *agent) shownStatus(r kv.StreamRequest) (*corev1.ContainerStatus, error) {
	w := a.worker(r)
	if w == nil {
		return nil, kv.StreamErrorf(schema.ErrNotFound, "pods %q not found", r.Pod.Name)
	}
	w.mu.Lock()
	want, shown := w.want, w.shown
	w.mu.Unlock()
	if container(want, r.Container) == nil {
		return nil, kv.StreamErrorf(schema.ErrRefused, "container %s is not valid for pod %s", r.Container, r.Pod.Name)
	}
	if shown != nil {
		for _, list := range [][]corev1.ContainerStatus{shown.ContainerStatuses, shown.InitContainerStatuses} {
			for i := range list {
				if list[i].Name == r.Container {
					return &list[i], nil
				}
			}
		}
	}
	return nil, kv.StreamErrorf(schema.ErrRefused, "container %q in pod %q is not available", r.Container, r.Pod.Name)
}

func streamLog(ctx context.Context, rt Streamer, r kv.StreamRequest, status *corev1.ContainerStatus, s *kv.Stream) error {
	id, err := loggedContainer(status, r.Pod.Name, r.Log.Previous)
	if err != nil {
		return err
	}
	l, err := rt.OpenLog(ctx, id, r.Log)
	if errors.Is(err, schema.ErrNotFound) && r.Log.Previous {
		return kv.StreamErrorf(schema.ErrRefused, "previous terminated container %q in pod %q not found", r.Container, r.Pod.Name)
	}
	if err != nil {
		return err
	}
	defer l.Close()
	if err := s.Accept(); err != nil {
		return err
	}
	return l.Copy(ctx, channelWriter{ctx, s, kv.ChannelStdout})
}

// loggedContainer says which attempt's log is meant, or, in the kubelet's words,
// why there is none.
func loggedContainer(c *corev1.ContainerStatus, podName string, previous bool) (id string, err error) {
	ended := func(s corev1.ContainerState) string {
		if s.Terminated == nil {
			return ""
		}
		return pod.ContainerID(s.Terminated.ContainerID)
	}
	last := ended(c.LastTerminationState)
	refuse := func(format string, args ...any) (string, error) {
		args = append([]any{c.Name, podName}, args...)
		return "", kv.StreamErrorf(schema.ErrRefused, format, args...)
	}
	switch {
	case previous && last == "":
		return refuse("previous terminated container %q in pod %q not found")
	case previous:
		return last, nil
	case c.State.Running != nil:
		return pod.ContainerID(c.ContainerID), nil
	case ended(c.State) != "":
		return ended(c.State), nil
	case last != "":
		return last, nil
	case c.State.Terminated != nil:
		return refuse("container %q in pod %q is terminated")
	case c.State.Waiting == nil:
		return refuse("container %q in pod %q is waiting to start - no logs yet")
	}
	switch reason := c.State.Waiting.Reason; reason {
	case "ErrImagePull":
		return refuse("container %q in pod %q is waiting to start: image can't be pulled")
	case "ImagePullBackOff":
		return refuse("container %q in pod %q is waiting to start: trying and failing to pull image")
	default:
		return refuse("container %q in pod %q is waiting to start: %v", reason)
	}
}

func (a *agent) streamExec(ctx context.Context, rt Streamer, r kv.StreamRequest, status *corev1.ContainerStatus, s *kv.Stream) error {
	if status.State.Running == nil {
		return kv.StreamErrorf(schema.ErrNotFound, "container not found (%q)", r.Container)
	}
	if err := s.Accept(); err != nil {
		return err
	}
	code, err := rt.Command(ctx, pod.ContainerID(status.ContainerID), commandOver(ctx, r.Exec, s))
	if ctx.Err() != nil {
		return context.Cause(ctx) // nobody is there to be told
	}
	result := kv.StreamResult{ExitCode: code}
	if err != nil {
		result = kv.StreamResult{ExitCode: 1, Error: err.Error(), Class: kv.ErrorClass(err)}
		if e := (*CommandError)(nil); errors.As(err, &e) {
			result.ExitCode, result.Error = e.Code, e.Text
		} else {
			a.log.Warn("a command in a container broke off", "pod", r.Pod, "container", r.Container, "err", err)
		}
	}
	text, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode how a command ended: %w", err)
	}
	return s.Send(ctx, kv.ChannelResult, text)
}

// commandOver connects a command with a stream.
func commandOver(ctx context.Context, e *kv.ExecRequest, s *kv.Stream) Command {
	c := Command{Argv: e.Command, TTY: e.TTY}
	if e.Stdin {
		c.Stdin = received(s)
	}
	if e.Stdout {
		c.Stdout = channelWriter{ctx, s, kv.ChannelStdout}
	}
	if e.Stderr && !e.TTY {
		c.Stderr = channelWriter{ctx, s, kv.ChannelStderr}
	}
	if e.TTY {
		c.Resize = s.Resizes()
	}
	return c
}

// A channelWriter sends what is written on one channel of a stream.
type channelWriter struct {
	ctx     context.Context
	s       *kv.Stream
	channel byte
}

func (w channelWriter) Write(p []byte) (int, error) {
	if err := w.s.Send(w.ctx, w.channel, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
