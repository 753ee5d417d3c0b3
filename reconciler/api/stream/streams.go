package stream

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// defaultMost is how many streams are open at a time when Options say nothing.
// Each may cost a window of schema/kv in both directions.
const defaultMost = 500

// viewersShare is the part of the streams that viewers may have together: one
// in so many. It leaves room on a single node too, which takes 256.
const viewersShare = 4

// A Dialer opens streams to nodes.
type Dialer interface {
	// Open returns once the node has accepted. It fails with the node's own words,
	// or with schema.ErrUnavailable when the node does not answer; ctx bounds the
	// opening alone.
	Open(ctx context.Context, n schema.NodeName, r kv.StreamRequest) (Conn, error)
}

// A Conn is one stream to a node. Send and Recv may be called by different
// goroutines at the same time.
type Conn interface {
	// Send blocks while the node has not granted credit.
	Send(ctx context.Context, channel byte, data []byte) error
	// Recv returns io.EOF at the node's end of the stream. When ctx ends before
	// something came, nothing is lost and Recv may be called again.
	Recv(ctx context.Context) (channel byte, data []byte, err error)
	// CloseSend says that no more comes from here.
	CloseSend() error
	// Close ends both directions at once; err, when there is one, is told to the node.
	Close(err error)
	// Context ends when both directions have ended, whoever ended them.
	Context() context.Context
}

// Over is the Dialer of the streams over NATS.
func Over(s *kv.Streams) Dialer { return over{s} }

type over struct{ *kv.Streams }

// Open implements Dialer.
func (o over) Open(ctx context.Context, n schema.NodeName, r kv.StreamRequest) (Conn, error) {
	c, err := o.Streams.Open(ctx, n, r)
	if err != nil {
		return nil, err // and no Conn that is not nil but holds nil
	}
	return c, nil
}

// Options of New.
type Options struct {
	Nodes  Dialer
	Pod    func(schema.PodKey) (*corev1.Pod, bool) // as the API shows it; read only
	Most   int                                     // streams open at a time; 0: 500
	Logger *slog.Logger                            // nil: slog.Default()
}

// Streams serves logs and commands of pods.
type Streams struct {
	o         Options
	ping      time.Duration // between signs of life to a command's client
	logs      counter
	exec      counter // attach too
	forward   counter // sessions
	forwarded counter // their connections
	archives  counter
	all       atomic.Int64
	viewed    atomic.Int64 // logs that viewers have open
}

// A counter is what is told of one sort of streams.
type counter struct{ open, total, refused atomic.Int64 }

// Counts says how many streams there are and were.
type Counts struct {
	LogsOpen, ExecOpen       int64 // now
	LogsTotal, ExecTotal     int64 // since the start
	LogsRefused, ExecRefused int64 // because too many were open
}

// New returns Streams; it starts nothing.
func New(o Options) *Streams {
	if o.Most <= 0 {
		o.Most = defaultMost
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Streams{o: o, ping: defaultPing}
}

// Counts may be called at any time.
func (s *Streams) Counts() Counts {
	return Counts{
		LogsOpen: s.logs.open.Load(), ExecOpen: s.exec.open.Load(),
		LogsTotal: s.logs.total.Load(), ExecTotal: s.exec.total.Load(),
		LogsRefused: s.logs.refused.Load(), ExecRefused: s.exec.refused.Load(),
	}
}

// enter counts a stream in; the returned function counts it out.
func (s *Streams) enter(c *counter) (leave func(), err error) {
	if s.all.Add(1) > int64(s.o.Most) {
		s.all.Add(-1)
		c.refused.Add(1)
		return nil, apierrors.NewTooManyRequests("too many logs, commands and connections of pods are open, try again when some have ended", 1)
	}
	c.total.Add(1)
	c.open.Add(1)
	return func() { c.open.Add(-1); s.all.Add(-1) }, nil
}

// enterLog is enter for a log. A reader that reads nothing may do so for as long
// as it likes, as one who pages through a log does; so that viewers, who may read
// logs and nothing else here, cannot keep out who may do more, they have a share.
func (s *Streams) enterLog(r *http.Request) (func(), error) {
	leave, err := s.enter(&s.logs)
	if user, ok := access.UserFrom(r.Context()); err != nil || !ok || user.Role == access.Admin {
		return leave, err
	}
	if s.viewed.Add(1) > int64(max(1, s.o.Most/viewersShare)) {
		s.viewed.Add(-1)
		leave()
		s.logs.refused.Add(1)
		return nil, apierrors.NewTooManyRequests("too many logs are open, try again when some have ended", 1)
	}
	return func() { s.viewed.Add(-1); leave() }, nil
}

// pod looks the pod up and chooses the container.
func (s *Streams) pod(k schema.PodKey, container string) (*corev1.Pod, string, error) {
	p, ok := s.o.Pod(k)
	if !ok {
		return nil, "", apierrors.NewNotFound(corev1.Resource("pods"), k.Name)
	}
	name, err := chooseContainer(p, container)
	return p, name, err
}

// open opens a stream to the pod's node; its errors are an API's.
func (s *Streams) open(ctx context.Context, p *corev1.Pod, r kv.StreamRequest) (Conn, error) {
	r.Pod, r.UID = schema.PodKey{Namespace: p.Namespace, Name: p.Name}, p.UID
	c, err := s.o.Nodes.Open(ctx, schema.NodeName(p.Spec.NodeName), r)
	if err != nil {
		return nil, nodeError(p, err)
	}
	return c, nil
}

// refused answers a request that came to no stream. A client that is gone gets none.
func (s *Streams) refused(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		writeError(w, err)
	}
}
