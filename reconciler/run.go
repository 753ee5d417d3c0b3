package reconciler

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/pawl-project/pawl/reconciler/gateway"
	"github.com/pawl-project/pawl/reconciler/githost"
	"github.com/pawl-project/pawl/reconciler/gitsource"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Run is the control plane until ctx is done. It returns an error when it
// cannot start; what fails later is retried and shows in logs and records.
func Run(ctx context.Context, cfg Config) error {
	control, err := kv.Connect(ctx, cfg.Control)
	if err != nil {
		return err
	}
	defer control.Close()
	nodes, err := kv.Connect(ctx, cfg.Nodes)
	if err != nil {
		return err
	}
	defer nodes.Close()
	store, err := kv.OpenStore(ctx, control, kv.StoreOptions{Replicas: 1})
	if err != nil {
		return err
	}
	sealer, err := kv.NewSealer(filepath.Join(cfg.DataDir, "keys", "cluster.age"))
	if err != nil {
		return err
	}
	l := &loop{
		store:  store,
		sealer: sealer,
		views:  newViews(store),
		intake: newIntake(cfg.Logger),
		log:    cfg.Logger,
		events: make(chan bulletin, eventBacklog),
	}
	door, source, err := openSource(ctx, cfg, l.intake)
	if err != nil {
		return err
	}
	gate, err := newGateway(nodes, store, l, cfg)
	if err != nil {
		return err
	}
	front := newKubeAPI(cfg, l, nodes, gate)
	door.ready, door.gauges = l.ready, l.gauges
	door.api, door.figures = front.server, append(door.figures, front.server.Metrics, door.crowd.figures)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.views.run(ctx) })
	g.Go(func() error { return l.run(ctx) })
	g.Go(func() error { return l.publish(ctx) })
	g.Go(func() error { return source(ctx) })
	g.Go(func() error { return front.run(ctx) })
	g.Go(func() error { return gate.Run(ctx) })
	g.Go(func() error {
		return serve(ctx, cfg.HTTP, door.handler(), cfg.Access.TLSConfig(), cfg.Access.Plain(), cfg.Logger)
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil || err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func newGateway(nodes *kv.Conn, store *kv.Store, l *loop, cfg Config) (*gateway.Gateway, error) {
	o := gateway.Options{
		Nodes:       nodes,
		Store:       store,
		Assignments: l.views.assignments,
		Desired:     l.views.desired,
		Actual:      l.views.actual,
		OpenSecret:  l.sealer.Open,
		Signed:      l.sealer.Signed,
		Logger:      cfg.Logger.With("room", "gateway"),
	}
	if err := giveTokens(&o, cfg.Access, l.views); err != nil {
		return nil, err
	}
	return gateway.New(o), nil
}

// openSource opens the repository that holds the desired state. The returned
// function hands every commit of the deployed branch to the intake until its
// context is done.
func openSource(ctx context.Context, cfg Config, in *intake) (frontDoor, func(context.Context) error, error) {
	if cfg.Git.URL != "" {
		return openRemote(cfg, in)
	}
	return openHost(ctx, cfg, in)
}

func openRemote(cfg Config, in *intake) (frontDoor, func(context.Context) error, error) {
	remote, err := gitsource.NewRemote(gitsource.RemoteOptions{
		URL:             cfg.Git.URL,
		Branch:          cfg.Git.Branch,
		Path:            cfg.Git.Path,
		Interval:        cfg.Git.Interval,
		CredentialsFile: cfg.Git.CredentialsFile,
		Dir:             filepath.Join(cfg.DataDir, "git", "remote.git"),
		Refused:         in.refuse,
		Logger:          cfg.Logger.With("room", "gitsource"),
	})
	if err != nil {
		return frontDoor{}, nil, err
	}
	door := frontDoor{access: cfg.Access, crowd: newCrowd(doorRoom), lookNow: remote.LookNow}
	return door, func(ctx context.Context) error {
		found := make(chan schema.Commit)
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return in.judge(ctx, found, nil) })
		g.Go(func() error {
			return remote.Run(ctx, func(c schema.Commit) {
				select {
				case found <- c:
				case <-ctx.Done():
				}
			})
		})
		return g.Wait()
	}, nil
}

func openHost(ctx context.Context, cfg Config, in *intake) (frontDoor, func(context.Context) error, error) {
	pushed := make(chan schema.Commit, 16)
	crowd := newCrowd(doorRoom)
	host, err := githost.New(githost.Options{
		Dir:    filepath.Join(cfg.DataDir, "git", "cluster.git"),
		RunDir: filepath.Join(cfg.RunDir, "git"),
		Branch: cfg.Git.Branch,
		Path:   cfg.Git.Path,
		Guard:  func(next http.Handler) http.Handler { return cfg.Access.Git(crowd.git(next)) },
		Check:  in.check,
		Pushed: func(c schema.Commit) {
			select {
			case pushed <- c:
			case <-ctx.Done():
			}
		},
		Refused: in.refuse,
		Logger:  cfg.Logger.With("room", "githost"),
	})
	if err != nil {
		return frontDoor{}, nil, err
	}
	door := frontDoor{access: cfg.Access, crowd: crowd, git: host}
	return door, func(ctx context.Context) error {
		defer host.Close()
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return host.Run(ctx) })
		g.Go(func() error { return follow(ctx, host, pushed, in) })
		return g.Wait()
	}, nil
}

// ready says why the views cannot be decided from yet.
func (v views) ready() error {
	if !v.whole() {
		return errors.New("the store's views are not whole yet: nothing is planned until they are")
	}
	return nil
}

func (l *loop) gauges() []gauge {
	return []gauge{
		{"pawl_desired_objects", "Objects in the applied revision.", float64(l.views.desired.Len())},
		{"pawl_assignments", "Pods bound to nodes.", float64(l.views.assignments.Len())},
		{"pawl_poisoned_keys", "Keys of the store that cannot be read.", float64(len(l.views.desired.Poisoned()) + len(l.views.assignments.Poisoned()) + len(l.views.actual.Poisoned()))},
	}
}
