package reconciler

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/natsserver"
	"github.com/pawl-project/pawl/reconciler/plan"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A loopRig is a loop over a real store.
type loopRig struct {
	*loop
	t      *testing.T
	dir    string
	server *natsserver.Server
	conn   *kv.Conn
}

func newLoopRig(t *testing.T) *loopRig {
	t.Helper()
	r := &loopRig{t: t, dir: t.TempDir()}
	quiet := slog.New(slog.DiscardHandler)
	var err error
	r.server, err = natsserver.Start(t.Context(), natsserver.Options{Dir: filepath.Join(r.dir, "nats"), KeysDir: filepath.Join(r.dir, "keys"), Logger: quiet})
	r.must(err)
	t.Cleanup(r.server.Close)
	r.open()
	return r
}

// open makes a loop on the store that there is, as a daemon that starts does.
func (r *loopRig) open() {
	r.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	store := r.openStore()
	sealer, err := kv.NewSealer(filepath.Join(r.dir, "cluster.age"))
	r.must(err)
	r.loop = &loop{
		store: store, sealer: sealer, views: newViews(store), intake: newIntake(quiet), log: quiet,
		planner: plan.NewPlanner(&plan.World{KeepAll: true}), events: make(chan bulletin, eventBacklog),
	}
}

// openStore opens the store over a connection of its own, r.conn from now on.
func (r *loopRig) openStore() *kv.Store {
	r.t.Helper()
	credentials, err := r.server.ControlCredentials()
	r.must(err)
	r.conn, err = kv.Connect(r.t.Context(), kv.ConnOptions{InProcess: r.server, Credentials: credentials, Name: "test", Logger: slog.New(slog.DiscardHandler)})
	r.must(err)
	r.t.Cleanup(r.conn.Close)
	store, err := kv.OpenStore(r.t.Context(), r.conn, kv.StoreOptions{})
	r.must(err)
	return store
}

func (r *loopRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// background runs f until the test ends, or until what it returns is called.
func (r *loopRig) background(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("run: %v", err)
		}
	}
	r.t.Cleanup(stop)
	return stop
}

// serve runs the loop as the daemon does.
func (r *loopRig) serve() (stop func()) {
	l := r.loop
	views, loop, publish := r.background(l.views.run), r.background(l.run), r.background(l.publish)
	return func() { loop(); publish(); views() }
}

func (r *loopRig) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// push has the loop take up a commit with these objects.
func (r *loopRig) push(id string, objects ...schema.Object) {
	r.intake.put(&verdict{
		commit:   schema.Commit{ID: id, Author: "Ann", Subject: "more of it"},
		revision: &schema.Revision{Commit: schema.Commit{ID: id, Author: "Ann"}, Objects: objects}, seen: time.Now(),
	})
}

// node reports a node, as the gateway would write it.
func (r *loopRig) node(name string) {
	r.t.Helper()
	n := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	room := corev1.ResourceList{corev1.ResourceCPU: quantity("4"), corev1.ResourceMemory: quantity("8Gi"), corev1.ResourcePods: quantity("110")}
	n.Status.Capacity, n.Status.Allocatable = room, room
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	r.write(schema.ObjectKey{Kind: schema.Nodes, Name: name}, n)
}

// report writes what a node says of a pod, as the gateway would.
func (r *loopRig) report(p schema.PodReport) {
	r.t.Helper()
	r.write(schema.ObjectKey{Kind: schema.Pods, Namespace: p.Pod.Namespace, Name: p.Pod.Name}, p)
}

func (r *loopRig) write(k schema.ObjectKey, value any) {
	r.t.Helper()
	text, err := json.Marshal(value)
	r.must(err)
	key := kv.ObjectKey(k)
	e, _ := r.views.actual.Get(key)
	_, err = r.store.Commit(r.t.Context(), []kv.Write{{Bucket: kv.Actuals, Key: key, Value: text, Revision: e.Revision}})
	r.must(err)
}

// assigned is the assignments to node n1, by pod.
func (r *loopRig) assigned() map[string]corev1.Pod {
	all := map[string]corev1.Pod{}
	for e := range r.views.assignments.All() {
		all[e.Value.Pod.Name] = e.Value.Pod
	}
	return all
}
