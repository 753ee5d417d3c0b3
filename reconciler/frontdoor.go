package reconciler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/api"
	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/reconciler/api/feed"
	"github.com/pawl-project/pawl/reconciler/api/stream"
	"github.com/pawl-project/pawl/reconciler/blame"
	"github.com/pawl-project/pawl/reconciler/gateway"
	"github.com/pawl-project/pawl/reconciler/githost"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
	"github.com/pawl-project/pawl/schema/manifest"
)

// kubeAPI is the Kubernetes API with what keeps it fed.
type kubeAPI struct {
	server  *api.Server
	feed    *feed.Feed
	events  *kv.EventReader
	streams *kv.Streams
}

// newKubeAPI puts the API together. It reads the loop's views and hands orders
// to the loop; it writes nothing itself.
func newKubeAPI(cfg Config, l *loop, nodes *kv.Conn, gate *gateway.Gateway) *kubeAPI {
	objects, events := cache.New(cache.Options{}), kv.NewEventReader(l.store)
	a := &kubeAPI{
		streams: kv.NewStreams(nodes),
		events:  events,
		feed: feed.New(feed.Options{
			Cache: objects, Desired: l.views.desired, Assignments: l.views.assignments, Actual: l.views.actual,
			Events: events, Logger: cfg.Logger.With("room", "feed"),
		}),
	}
	object := func(k schema.ObjectKey) (schema.Object, bool) {
		item, ok := objects.Get(k)
		if !ok {
			return nil, false
		}
		return item.Object(), true
	}
	story := blame.New(blame.Options{
		Dir: cfg.repositoryDir(), Path: cfg.Git.Path, Object: object, May: mayGet, Logger: cfg.Logger.With("room", "blame"),
	})
	a.server = api.New(api.Options{
		Cache:      objects,
		Ready:      a.feed.Ready,
		Checks:     func() []api.Check { return l.checks() },
		OpenSecret: l.sealer.Open,
		Streams: stream.New(stream.Options{
			Nodes: stream.Over(a.streams), Pod: podOf(object), Logger: cfg.Logger.With("room", "stream"),
		}),
		RestartPod: l.RestartPod,
		Usage:      gate.Usage,
		Lease:      l.lease,
		Review:     cfg.Access.ReviewToken,
		Validate:   l.intake.validate,
		Repository: cfg.repository(), Branch: cfg.Git.Branch,
		Version: cfg.Version,
		Extra: []api.Route{{Path: schema.BlamePath, Handler: func(w http.ResponseWriter, r *http.Request, _ schema.ObjectKey) {
			story.ServeHTTP(w, r)
		}}},
		Logger: cfg.Logger.With("room", "api"),
	})
	return a
}

// run feeds the API until ctx is done, and then ends what is still answered.
func (a *kubeAPI) run(ctx context.Context) error {
	defer a.server.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.events.Run(ctx) })
	g.Go(func() error { return a.feed.Run(ctx) })
	g.Go(func() error { return a.streams.Run(ctx) })
	return g.Wait()
}

// lease is when a node was last heard, as the gateway wrote it down.
func (l *loop) lease(ctx context.Context, n schema.NodeName) (renewed time.Time, lasts time.Duration, err error) {
	lease, err := l.store.GetLease(ctx, kv.NodeLeaseKey(n))
	if errors.Is(err, schema.ErrNotFound) {
		return time.Time{}, 0, nil
	}
	return lease.Renewed, gateway.LeaseTTL, err
}

func podOf(object func(schema.ObjectKey) (schema.Object, bool)) func(schema.PodKey) (*corev1.Pod, bool) {
	return func(k schema.PodKey) (*corev1.Pod, bool) {
		o, ok := object(schema.ObjectKey{Kind: schema.Pods, Namespace: k.Namespace, Name: k.Name})
		if !ok {
			return nil, false
		}
		p, ok := o.(*corev1.Pod)
		return p, ok
	}
}

// mayGet says by an API's error that whoever asks may not see an object.
func mayGet(r *http.Request, k schema.ObjectKey) error {
	group := ""
	if i, ok := schema.LookupKind(k.Kind); ok {
		group = i.GVK.Group
	}
	user, _ := access.UserFrom(r.Context())
	ok, reason := user.May(access.Attributes{Verb: "get", Group: group, Resource: string(k.Kind), Namespace: k.Namespace, Name: k.Name, Path: r.URL.Path})
	if ok {
		return nil
	}
	return apierrors.NewForbidden(k8sschema.GroupResource{Group: group, Resource: string(k.Kind)}, k.Name, errors.New(reason))
}

// repository is where people push, without the credentials that some write into
// a URL.
func (c *Config) repository() string {
	if c.Git.URL == "" {
		return c.Access.URL() + githost.Prefix
	}
	if u, err := url.Parse(c.Git.URL); err == nil && u.User != nil {
		u.User = nil
		return u.String()
	}
	return c.Git.URL
}

// repositoryDir is the bare repository on this machine: the built-in one, or the
// copy of the remote one.
func (c *Config) repositoryDir() string {
	if c.Git.URL == "" {
		return filepath.Join(c.DataDir, "git", "cluster.git")
	}
	return filepath.Join(c.DataDir, "git", "remote.git")
}

// validate judges one manifest as if it were all of a repository.
func (in *intake) validate(ctx context.Context, text []byte) (schema.Object, []schema.Fault, error) {
	result, err := in.compiler.Compile(ctx, manifest.MemTree(map[string]string{"manifest.json": string(text)}))
	if err != nil {
		return nil, nil, err
	}
	if len(result.Objects) != 1 {
		return nil, nil, fmt.Errorf("%d objects, want one: %w", len(result.Objects), schema.ErrRefused)
	}
	return result.Objects[0], result.Warnings, nil
}

// checks are the parts of being ready.
func (l *loop) checks() []api.Check {
	return []api.Check{{Name: "store", Err: l.ready()}}
}
