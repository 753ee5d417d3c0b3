package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// chunk is how much of stdin is read at a time, in bytes.
	chunk = 32 << 10
	// defaultPing is how often a client is sent a sign of life. The second one finds
	// out that a client is gone whose input waits to be read.
	defaultPing = 5 * time.Second
	// farewell is how long a client may take to hang up once everything was said.
	// Hanging up first could destroy what is still on its way.
	farewell = 3 * time.Second
)

// A session is the client's end of a command, whatever it speaks.
type session interface {
	// serve hands on what the client sends, and returns when the client is gone or
	// the session was closed. It is called once.
	serve(in input)
	// write sends bytes of stdout or stderr. One goroutine writes.
	write(channel byte, data []byte) error
	// ping sends a sign of life. It may be called beside write, and blocks while the
	// client reads nothing.
	ping() error
	// finish sends how the command ended and says goodbye; serve returns when the
	// client has heard it.
	finish(status metav1.Status)
	// close hangs up at once, and ends what blocks. It may be called at any time.
	close()
}

// An input takes what a client sends. Its methods block while the node has no
// room, and throw away what comes after the command's end.
type input interface {
	stdin(data []byte)
	stdinEnd()
	resize(text []byte)
}

// Exec answers GET (WebSocket) and POST (SPDY) pods/{name}/exec.
func (s *Streams) Exec(w http.ResponseWriter, r *http.Request, k schema.PodKey) {
	s.process(w, r, k, "executing command in", func(e *kv.ExecRequest) (kv.StreamRequest, error) {
		if len(e.Command) == 0 {
			return kv.StreamRequest{}, apierrors.NewBadRequest("you must specify at least one command for the container")
		}
		return kv.StreamRequest{Verb: kv.StreamExec, Exec: e}, nil
	})
}

// process connects a client with a process in a container; ask is what the node
// is asked for.
func (s *Streams) process(w http.ResponseWriter, r *http.Request, k schema.PodKey, doing string, ask func(*kv.ExecRequest) (kv.StreamRequest, error)) {
	leave, err := s.enter(&s.exec)
	if err != nil {
		s.refused(w, r, err)
		return
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	c, request, upgrade, err := s.openProcess(ctx, r, k, ask)
	if err != nil {
		s.refused(w, r, err)
		return
	}
	defer c.Close(nil)
	client, err := upgrade(w, r, *request)
	if err != nil {
		s.o.Logger.Info("a command's client could not be reached", "pod", k, "error", err)
		return // it was told
	}
	e := &execution{server: r.Context(), ctx: ctx, cancel: cancel, node: c, client: client, tty: request.TTY, ping: s.ping, doing: doing}
	if err := e.run(); err != nil {
		s.o.Logger.Info("a command's stream broke off", "pod", k, "error", err)
	}
}

// An upgrader turns a request into a session. When it fails it has answered.
type upgrader func(http.ResponseWriter, *http.Request, kv.ExecRequest) (session, error)

// openProcess judges the request and opens the stream before the connection is
// upgraded: after that an error has no status code.
func (s *Streams) openProcess(ctx context.Context, r *http.Request, k schema.PodKey, ask func(*kv.ExecRequest) (kv.StreamRequest, error)) (Conn, *kv.ExecRequest, upgrader, error) {
	p, container, err := s.pod(k, r.URL.Query().Get("container"))
	if err != nil {
		return nil, nil, nil, err
	}
	if p.Spec.NodeName == "" {
		return nil, nil, nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", p.Name))
	}
	request, err := execRequest(r)
	if err != nil {
		return nil, nil, nil, err
	}
	asked, err := ask(request)
	if err != nil {
		return nil, nil, nil, err
	}
	upgrade, err := upgraderFor(r)
	if err != nil {
		return nil, nil, nil, err
	}
	asked.Container = container
	c, err := s.open(ctx, p, asked)
	return c, request, upgrade, err
}

// execRequest reads the parameters of a command.
func execRequest(r *http.Request) (*kv.ExecRequest, error) {
	q := queryReader{query: r.URL.Query()}
	e := &kv.ExecRequest{
		Command: q.query["command"],
		Stdin:   q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr"), TTY: q.flag("tty"),
	}
	if e.TTY {
		e.Stderr = false // a terminal has one output
	}
	if !e.Stdin && !e.Stdout && !e.Stderr {
		return nil, apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	return e, nil
}

// An execution is one command with both its ends.
type execution struct {
	server context.Context // ends when the server stops
	ctx    context.Context // ends then, too, and when the client is gone or the command has ended
	cancel context.CancelFunc
	node   Conn
	client session
	doing  string // with the container, for messages
	tty    bool
	ping   time.Duration
}

// run blocks until the command has ended or the client is gone, and everything
// it started has.
func (e *execution) run() error {
	var g sync.WaitGroup
	g.Go(func() {
		e.client.serve(e)
		e.gone()
	})
	g.Go(e.pings)
	defer context.AfterFunc(e.server, e.client.close)() // or a client that does not read would outlive the server
	status, err := e.output()
	over := e.ctx.Err() != nil
	e.cancel()
	e.node.Close(nil)
	if over {
		e.client.close()
		g.Wait()
		return nil
	}
	e.client.finish(status)
	hangUp := time.AfterFunc(farewell, e.client.close)
	g.Wait()
	hangUp.Stop()
	e.client.close()
	return err
}

// output sends the client what the node sends, and returns how it ended. The
// error says so too when it did not end as it should.
func (e *execution) output() (metav1.Status, error) {
	for {
		channel, data, err := e.node.Recv(e.ctx)
		if errors.Is(err, io.EOF) {
			err = errors.New("the node did not say how the command ended")
		}
		if err != nil {
			return statusOf(apierrors.NewInternalError(errors.New(plainText(err)))), err
		}
		switch channel {
		case kv.ChannelStdout, kv.ChannelStderr:
			if err := e.client.write(channel, data); err != nil {
				e.gone()
				return metav1.Status{}, err
			}
		case kv.ChannelResult: // the last there is, however the stream ends
			var result kv.StreamResult
			if err := json.Unmarshal(data, &result); err != nil {
				return statusOf(apierrors.NewInternalError(errors.New("the node's word on how the command ended cannot be read"))), err
			}
			return resultStatus(result, e.doing), nil
		}
	}
}

func (e *execution) pings() {
	t := time.NewTicker(e.ping)
	defer t.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-t.C:
			if err := e.client.ping(); err != nil && e.ctx.Err() == nil { // after the end it comes too late
				e.gone()
				return
			}
		}
	}
}

// gone is called when the client is.
func (e *execution) gone() {
	e.cancel()
	e.client.close()
}

// stdin implements input.
func (e *execution) stdin(data []byte) {
	// An error means that the stream is over, which output notices too.
	_ = e.node.Send(e.ctx, kv.ChannelStdin, data) //nolint:errcheck // see above
}

// stdinEnd implements input.
func (e *execution) stdinEnd() {
	_ = e.node.CloseSend() //nolint:errcheck // see stdin
}

// resize implements input.
func (e *execution) resize(text []byte) {
	var size kv.TermSize
	if !e.tty || json.Unmarshal(text, &size) != nil {
		return
	}
	if text, err := json.Marshal(size); err == nil {
		_ = e.node.Send(e.ctx, kv.ChannelResize, text) //nolint:errcheck // see stdin
	}
}
