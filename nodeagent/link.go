package nodeagent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// connectRetryMax is the longest pause between attempts to connect at first; a
// connection that was once made comes back by itself.
const connectRetryMax = 5 * time.Second

// A natsLink is the Link over NATS. It connects in Run, so that a node without a
// control plane in reach starts all the same.
type natsLink struct {
	node    schema.NodeName
	options kv.ConnOptions
	log     *slog.Logger

	mu    sync.Mutex
	agent *kv.Agent // nil: not connected yet, or no more
}

// Over is the Link to a gateway by a NATS connection with the node's credentials.
func Over(node schema.NodeName, o kv.ConnOptions, log *slog.Logger) Link {
	if o.InboxPrefix == "" {
		o.InboxPrefix = "_INBOX." + string(node)
	}
	return &natsLink{node: node, options: o, log: log}
}

// Run implements Link.
func (l *natsLink) Run(ctx context.Context, h Handler) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	agent := kv.NewAgent(conn, l.node)
	l.use(agent)
	defer l.use(nil)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return agent.Run(ctx, kvHandler{h}) })
	if streams, ok := h.(StreamHandler); ok {
		g.Go(func() error { return kv.ServeStreams(ctx, conn, l.node, streams.Stream) })
	}
	return g.Wait()
}

// connect tries until ctx is done.
func (l *natsLink) connect(ctx context.Context) (*kv.Conn, error) {
	for retry := reportRetry; ; retry = min(2*retry, connectRetryMax) {
		conn, err := kv.Connect(ctx, l.options)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		l.log.Warn("cannot connect to the control plane; going on with the last assignments", "retry", retry, "err", err)
		pause(ctx, retry)
	}
}

func (l *natsLink) use(a *kv.Agent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.agent = a
}

func (l *natsLink) current() (*kv.Agent, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.agent == nil {
		return nil, fmt.Errorf("not connected to the control plane: %w", schema.ErrUnavailable)
	}
	return l.agent, nil
}

// ReportPods implements ControlPlane.
func (l *natsLink) ReportPods(ctx context.Context, reports []schema.PodReport) error {
	a, err := l.current()
	if err != nil {
		return err
	}
	return a.ReportPods(ctx, reports)
}

// ReportNode implements ControlPlane.
func (l *natsLink) ReportNode(ctx context.Context, n *corev1.Node) error {
	a, err := l.current()
	if err != nil {
		return err
	}
	return a.ReportNode(ctx, n)
}

// ReportEvents implements ControlPlane.
func (l *natsLink) ReportEvents(ctx context.Context, events []corev1.Event) error {
	a, err := l.current()
	if err != nil {
		return err
	}
	return a.ReportEvents(ctx, events)
}

// ReportUsage implements UsageTaker.
func (l *natsLink) ReportUsage(ctx context.Context, u *schema.NodeUsage) error {
	a, err := l.current()
	if err != nil {
		return err
	}
	return a.ReportUsage(ctx, u)
}

// Token implements TokenGiver.
func (l *natsLink) Token(ctx context.Context, r schema.TokenRequest) (schema.Token, error) {
	a, err := l.current()
	if err != nil {
		return schema.Token{}, err
	}
	return a.Token(ctx, r)
}

// kvHandler hands on what comes by the store's protocol.
type kvHandler struct{ h Handler }

func (k kvHandler) Whole(s kv.Set) { k.h.Whole(assigned(s.Contents)) }

func (k kvHandler) Delta(d kv.Delta) { k.h.Delta(assigned(d.Contents), d.Remove) }

func assigned(c kv.Contents) Assigned {
	return Assigned{Assignments: c.Assignments, ConfigMaps: c.ConfigMaps, Secrets: c.Secrets}
}
