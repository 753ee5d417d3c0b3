package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/reconciler/natsserver"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// eventually waits for what another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// A server is a real one, with its store.
type server struct {
	t     testing.TB
	dir   string
	nats  *natsserver.Server
	store *kv.Store
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir()}
	s.start("127.0.0.1:0")
	t.Cleanup(func() { s.nats.Close() })
	s.store = s.open()
	return s
}

func (s *server) start(listen string) {
	s.t.Helper()
	s.nats = must[*natsserver.Server](s.t)(natsserver.Start(context.Background(), natsserver.Options{
		Dir: filepath.Join(s.dir, "nats"), KeysDir: filepath.Join(s.dir, "keys"), Listen: listen, Logger: quiet(),
	}))
}

// restart stops the server, does what f does, and starts it where it was.
func (s *server) restart(f func()) {
	s.t.Helper()
	listen := strings.TrimPrefix(s.nats.ClientURL(), "nats://")
	s.nats.Close()
	f()
	s.start(listen)
}

// open connects anew, as a daemon that starts does.
func (s *server) open() *kv.Store {
	s.t.Helper()
	conn := must[*kv.Conn](s.t)(kv.Connect(context.Background(), kv.ConnOptions{
		URL: s.nats.ClientURL(), Credentials: must[kv.Credentials](s.t)(s.nats.ControlCredentials()), Name: s.t.Name(), Logger: quiet(),
	}))
	s.t.Cleanup(conn.Close)
	return must[*kv.Store](s.t)(kv.OpenStore(context.Background(), conn, kv.StoreOptions{}))
}

// A control is a control plane's views, feed and cache.
type control struct {
	t           testing.TB
	store       *kv.Store
	desired     *kv.View[schema.Object]
	assignments *kv.View[schema.Assignment]
	actual      *kv.View[kv.Actual]
	events      *kv.EventReader
	cache       *cache.Cache
	feed        *Feed
	stop        func()
}

// patient has a feed wait for late messages for as long as a machine that does
// much else may need, so that no version is raised.
func patient(f *Feed) { f.order.moving, f.order.most = time.Second, 30*time.Second }

func newControl(t testing.TB, store *kv.Store, grace time.Duration, set ...func(*Feed)) *control {
	t.Helper()
	c := &control{
		t: t, store: store,
		desired:     kv.NewView(store, kv.Desired, kv.DecodeDesired),
		assignments: kv.NewView(store, kv.Assignments, kv.DecodeAssignment),
		actual:      kv.NewView(store, kv.Actuals, kv.DecodeActual),
		events:      kv.NewEventReader(store),
		cache:       cache.New(cache.Options{}),
	}
	c.feed = New(Options{Cache: c.cache, Desired: c.desired, Assignments: c.assignments, Actual: c.actual, Events: c.events, Logger: quiet()})
	c.feed.grace = grace
	for _, f := range set {
		f(c.feed)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, run := range []func(context.Context) error{c.desired.Run, c.assignments.Run, c.actual.Run, c.events.Run, c.feed.Run} {
		all.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	c.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	t.Cleanup(c.stop)
	eventually(t, "the feed is ready", c.feed.Ready)
	return c
}

func (c *control) whole() bool {
	return c.desired.Whole() && c.assignments.Whole() && c.actual.Whole() && c.events.Whole()
}

// put writes as the reconciler does: by compare-and-set, shown by Apply at once.
func (c *control) put(b kv.Bucket, key string, value any) {
	c.t.Helper()
	c.write(kv.Write{Bucket: b, Key: key, Value: must[[]byte](c.t)(json.Marshal(value))})
}

func (c *control) remove(b kv.Bucket, key string) {
	c.t.Helper()
	c.write(kv.Write{Bucket: b, Key: key, Delete: true})
}

func (c *control) write(w kv.Write) {
	c.t.Helper()
	apply := c.actual.Apply
	switch w.Bucket {
	case kv.Desired:
		e, _ := c.desired.Get(w.Key)
		w.Revision, apply = e.Revision, c.desired.Apply
	case kv.Assignments:
		e, _ := c.assignments.Get(w.Key)
		w.Revision, apply = e.Revision, c.assignments.Apply
	default:
		e, _ := c.actual.Get(w.Key)
		w.Revision = e.Revision
	}
	rev := must[[]uint64](c.t)(c.store.Commit(context.Background(), []kv.Write{w}))[0]
	if rev == 0 {
		return // a deletion of nothing
	}
	if err := apply(w, rev); err != nil {
		c.t.Fatal(err)
	}
}

func (c *control) desire(o schema.Object) {
	c.t.Helper()
	o.SetUID(schema.UIDOf(schema.KeyOf(o)))
	c.put(kv.Desired, kv.ObjectKey(schema.KeyOf(o)), o)
}

func (c *control) assign(node schema.NodeName, p corev1.Pod) {
	c.t.Helper()
	p.Spec.NodeName = string(node)
	c.put(kv.Assignments, kv.AssignmentKey(node, schema.PodKey{Namespace: p.Namespace, Name: p.Name}), schema.Assignment{Node: node, Pod: p})
}

func (c *control) report(node schema.NodeName, p corev1.Pod, phase corev1.PodPhase, gone bool) {
	c.t.Helper()
	p.Spec.NodeName, p.Status.Phase = string(node), phase
	c.put(kv.Actuals, kv.ObjectKey(podObject(schema.PodKey{Namespace: p.Namespace, Name: p.Name})), schema.PodReport{Node: node, Pod: p, Gone: gone})
}

// shows waits until the cache shows an object as f wants it; nil: until it is gone.
func (c *control) shows(what string, k schema.ObjectKey, f func(schema.Object) bool) *cache.Item {
	c.t.Helper()
	var item *cache.Item
	eventually(c.t, what, func() bool {
		i, ok := c.cache.Get(k)
		item = i
		if f == nil {
			return !ok
		}
		return ok && f(i.Object())
	})
	return item
}

// contents is everything that the cache shows: version and JSON by key.
func (c *control) contents() map[string]string {
	all := map[string]string{}
	for _, info := range schema.Kinds() {
		items, _ := c.cache.List(info.Kind, "")
		for _, i := range items {
			all[i.Key.String()] = fmt.Sprintf("%d %s", i.Version, i.JSON())
		}
	}
	return all
}

func jsonOf(v any) ([]byte, error) { return json.Marshal(v) }
