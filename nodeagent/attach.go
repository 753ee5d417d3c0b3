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

// Attacher is what a Streamer may be besides, for people who want to be
// connected with a container's own process.
type Attacher interface {
	// Attach connects with the process of a running container until that has ended
	// and everything it wrote is handed over, or until its input is over (see
	// Attachment). It wraps schema.ErrNotFound when the container does not run.
	Attach(ctx context.Context, id string, a Attachment) error
}

// An Attachment is where the output of a process goes from now on, and where
// more of its input comes from.
type Attachment struct {
	// Attached is called once, when no more output is missed.
	Attached func() error

	// Stdin is as in Command; nil: nothing is given. A process without standard
	// input is given nothing. At its end the attachment ends too, unless the input
	// is for one attachment only: then the process sees the end of its input, and
	// its output goes on.
	Stdin func(ctx context.Context) ([]byte, error)
	// Stdout and Stderr take output; nil: it is not wanted. One that does not take
	// it in time ends the attachment with an error. A terminal has Stdout alone.
	Stdout, Stderr io.Writer
	Resize         <-chan kv.TermSize // of the terminal; nil: never
}

func (a *agent) streamAttach(ctx context.Context, rt Attacher, r kv.StreamRequest, status *corev1.ContainerStatus, s *kv.Stream) error {
	if status.State.Running == nil {
		return kv.StreamErrorf(schema.ErrNotFound, "container %s not found in pod %s", r.Container, r.Pod.Name)
	}
	x := Attachment{Attached: s.Accept, Resize: s.Resizes()}
	if r.Attach.Stdin {
		x.Stdin = received(s)
	}
	if r.Attach.Stdout {
		x.Stdout = channelWriter{ctx, s, kv.ChannelStdout}
	}
	if r.Attach.Stderr {
		x.Stderr = channelWriter{ctx, s, kv.ChannelStderr}
	}
	err := rt.Attach(ctx, pod.ContainerID(status.ContainerID), x)
	if ctx.Err() != nil {
		return context.Cause(ctx) // nobody is there to be told
	}
	return sendResult(ctx, s, 0, err)
}

// received is what a stream brings, as input.
func received(s *kv.Stream) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		_, data, err := s.Recv(ctx)
		return data, err
	}
}

// sendResult says how it ended what a stream was for. An error before the
// stream was accepted is the answer to the request instead.
func sendResult(ctx context.Context, s *kv.Stream, code int, err error) error {
	result := kv.StreamResult{ExitCode: code}
	if err != nil {
		if !s.Accepted() {
			return err
		}
		result = kv.StreamResult{ExitCode: 1, Error: err.Error(), Class: kv.ErrorClass(err)}
		if e := (*kv.StreamError)(nil); errors.As(err, &e) {
			result.Error = e.Text
		}
	}
	text, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode how a stream ended: %w", err)
	}
	return s.Send(ctx, kv.ChannelResult, text)
}
