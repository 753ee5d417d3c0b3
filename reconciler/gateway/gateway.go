package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sync/errgroup"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Options are what a gateway needs. The views are run by the caller.
type Options struct {
	Nodes       *kv.Conn // with the gateway's credentials, to the account of the nodes
	Store       *kv.Store
	Assignments *kv.View[schema.Assignment]
	Desired     *kv.View[schema.Object]
	Actual      *kv.View[kv.Actual]
	// OpenSecret unseals a Secret, for a node whose pod uses it.
	OpenSecret func(*corev1.Secret) (*corev1.Secret, error)
	// Signed says whether a node tells of a pod as this cluster assigned it to it
	// once. Of a pod that nobody has assigned only then a word is taken.
	Signed func(*schema.PodReport) bool
	// IssueToken makes the token of a pod's service account; nil: there are none.
	IssueToken func(TokenOrder) (schema.Token, error)
	// RootCA is what vouches for the API to pods, as PEM; it is never written to.
	RootCA []byte
	Logger *slog.Logger
}

const (
	// requestQueue is how many requests may wait for the clerk; the door holds
	// back the others.
	requestQueue = 64
	// housekeeping is the time between looks for nodes that are silent.
	housekeeping = 30 * time.Second
)

// A Gateway serves the agents of all nodes.
type Gateway struct {
	o        Options
	log      *slog.Logger
	faults   *faults
	door     *kv.Door
	requests chan kv.Request
	events   chan []corev1.Event // of nodes, to be stored; from the clerk
	usages   *usages

	// What follows belongs to the clerk, the goroutine that decides.
	epoch    string
	nodes    map[schema.NodeName]*node
	assigned map[schema.PodKey]map[schema.NodeName]bool // who may speak of a pod
	pods     map[schema.NodeName]map[schema.PodKey]bool // the same by node
	users    map[schema.ObjectKey]map[schema.NodeName]bool
	losses   uint64 // of the store, that nodes were told of
	retired  uint64 // no node that is forgotten was at a later generation
	inbox    *inbox
}

// New makes a gateway; Run runs it.
func New(o Options) *Gateway {
	if o.Logger == nil {
		o.Logger = slog.Default().With("room", "gateway")
	}
	g := &Gateway{
		o:        o,
		log:      o.Logger,
		faults:   newFaults(o.Logger),
		requests: make(chan kv.Request, requestQueue),
		events:   make(chan []corev1.Event, eventQueue),
		nodes:    map[schema.NodeName]*node{},
		assigned: map[schema.PodKey]map[schema.NodeName]bool{},
		pods:     map[schema.NodeName]map[schema.PodKey]bool{},
		users:    map[schema.ObjectKey]map[schema.NodeName]bool{},
		inbox:    newInbox(),
		usages:   newUsages(),
	}
	g.door = kv.NewDoor(o.Nodes, g.faults.count)
	return g
}

// Faults says how often what went wrong since the start, by cause.
func (g *Gateway) Faults() map[string]uint64 { return g.faults.totals() }

// Run serves until ctx is done, and then returns nil.
func (g *Gateway) Run(ctx context.Context) error {
	epoch := make([]byte, 8)
	if _, err := rand.Read(epoch); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	g.epoch = hex.EncodeToString(epoch)
	w := newWriter(g.o)
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error {
		return g.door.Run(ctx, func(r kv.Request) {
			select {
			case g.requests <- r:
			case <-ctx.Done():
			}
		})
	})
	eg.Go(func() error { return w.run(ctx) })
	eg.Go(func() error { return g.publish(ctx) })
	eg.Go(func() error { return g.keepUsage(ctx) })
	eg.Go(func() error { return g.clerk(ctx, w) })
	return eg.Wait()
}

// clerk decides: what each node is sent, and what of its words is written.
func (g *Gateway) clerk(ctx context.Context, w *writer) error {
	assignments, desired := g.o.Assignments.Subscribe(), g.o.Desired.Subscribe()
	defer assignments.Close()
	defer desired.Close()
	news := g.door.News()
	defer news.Close()
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	for {
		var busy chan<- []*entry // nil while the writer has work
		var batch []*entry
		if !w.busy {
			if batch = g.inbox.batch(time.Now()); len(batch) > 0 {
				busy = w.work
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-assignments.C:
		case <-desired.C:
		case <-news.C:
			g.greetAll() // what was sent over a lost connection did not arrive
		case busy <- batch:
			g.inbox.taken(batch)
			w.busy = true
		case results := <-w.done:
			w.busy = false
			g.settle(results)
		case <-g.inbox.retry.C:
		case now := <-tick.C:
			g.forgetSilent(now)
		case r := <-g.requests:
			g.follow(assignments, desired)
			g.serve(r)
			continue
		}
		g.follow(assignments, desired)
	}
}

// whole says whether the nodes' sets can be made up. From views that are not
// whole nothing is removed, nor handed out as everything there is.
func (g *Gateway) whole() bool {
	return g.o.Assignments.Whole() && g.o.Desired.Whole()
}

// serve handles one request.
func (g *Gateway) serve(r kv.Request) {
	switch r.Verb {
	case kv.VerbSync:
		g.sync(r)
	case kv.VerbPods:
		g.takePods(r)
	case kv.VerbNode:
		g.takeNode(r)
	case kv.VerbEvents:
		g.takeEvents(r)
	case kv.VerbUsage:
		g.takeUsage(r)
	case kv.VerbToken:
		g.token(r)
	}
}

func (g *Gateway) answer(r kv.Request, a kv.Answer) {
	if err := g.door.Answer(r, a); err != nil {
		g.faults.count(r.Node, "answer not sent")
	}
}

// refuse answers with an error. Who hears of it is the node; here it is counted.
func (g *Gateway) refuse(r kv.Request, cause string, err error) {
	g.faults.count(r.Node, cause)
	g.answer(r, kv.AnswerError(err))
}
