package gateway

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"encoding/json"

	"github.com/pawl-project/pawl/reconciler/natsserver"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A cluster is a server, a store with its views, and a gateway.
type cluster struct {
	t       testing.TB
	dir     string
	server  *natsserver.Server
	store   *kv.Store
	control *kv.Conn
	nodes   *kv.Conn
	sealer  *kv.Sealer

	assignments *kv.View[schema.Assignment]
	desired     *kv.View[schema.Object]
	actual      *kv.View[kv.Actual]
	gateway     *Gateway
	stopGateway func()

	mu     sync.Mutex
	orders []TokenOrder // for tokens, that were carried out
}

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
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	c.startServer("127.0.0.1:0")
	t.Cleanup(func() { c.server.Close() })
	c.control = c.connect("reconciler", must[kv.Credentials](t)(c.server.ControlCredentials()), "")
	c.nodes = c.connect("gateway", must[kv.Credentials](t)(c.server.GatewayCredentials()), "")
	c.store = must[*kv.Store](t)(kv.OpenStore(t.Context(), c.control, kv.StoreOptions{}))
	c.sealer = clusterKey
	c.assignments = kv.NewView(c.store, kv.Assignments, kv.DecodeAssignment)
	c.desired = kv.NewView(c.store, kv.Desired, kv.DecodeDesired)
	c.actual = kv.NewView(c.store, kv.Actuals, kv.DecodeActual)
	c.run(c.assignments.Run)
	c.run(c.desired.Run)
	c.run(c.actual.Run)
	c.startGateway()
	eventually(t, "views are whole", func() bool {
		return c.assignments.Whole() && c.desired.Whole() && c.actual.Whole()
	})
	return c
}

func (c *cluster) startServer(listen string) {
	c.t.Helper()
	c.server = must[*natsserver.Server](c.t)(natsserver.Start(context.Background(), natsserver.Options{
		Dir: filepath.Join(c.dir, "nats"), KeysDir: filepath.Join(c.dir, "keys"), Listen: listen, Logger: quiet(),
	}))
}

func (c *cluster) startGateway() {
	c.gateway = New(Options{
		Nodes: c.nodes, Store: c.store, Assignments: c.assignments, Desired: c.desired, Actual: c.actual,
		OpenSecret: c.sealer.Open, Signed: c.sealer.Signed, IssueToken: c.issueToken, RootCA: []byte("the root"), Logger: quiet(),
	})
	c.stopGateway = c.run(c.gateway.Run)
}

// run runs f until the test ends, or until what it returns is called.
func (c *cluster) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil {
			c.t.Errorf("run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	c.t.Cleanup(stop)
	return stop
}

func (c *cluster) connect(name string, creds kv.Credentials, prefix string) *kv.Conn {
	c.t.Helper()
	conn := must[*kv.Conn](c.t)(kv.Connect(context.Background(), kv.ConnOptions{
		URL: c.server.ClientURL(), Credentials: creds, Name: name, InboxPrefix: prefix, Logger: quiet(),
	}))
	c.t.Cleanup(conn.Close)
	return conn
}

// put writes objects as the reconciler does.
func (c *cluster) put(b kv.Bucket, key string, value any) {
	c.t.Helper()
	text := must[[]byte](c.t)(json.Marshal(value))
	c.commit(kv.Write{Bucket: b, Key: key, Value: text, Revision: c.revision(b, key)})
}

func (c *cluster) remove(b kv.Bucket, key string) {
	c.t.Helper()
	c.commit(kv.Write{Bucket: b, Key: key, Delete: true, Revision: c.revision(b, key)})
}

func (c *cluster) revision(b kv.Bucket, key string) uint64 {
	switch b {
	case kv.Desired:
		e, _ := c.desired.Get(key)
		return e.Revision
	case kv.Assignments:
		e, _ := c.assignments.Get(key)
		return e.Revision
	default:
		e, _ := c.actual.Get(key)
		return e.Revision
	}
}

func (c *cluster) commit(w kv.Write) {
	c.t.Helper()
	rev := must[[]uint64](c.t)(c.store.Commit(context.Background(), []kv.Write{w}))[0]
	var err error
	switch w.Bucket {
	case kv.Desired:
		err = c.desired.Apply(w, rev)
	case kv.Assignments:
		err = c.assignments.Apply(w, rev)
	default:
		err = c.actual.Apply(w, rev)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) assign(n schema.NodeName, p *corev1.Pod) {
	c.t.Helper()
	q := *p
	q.Spec.NodeName = string(n)
	c.put(kv.Assignments, kv.AssignmentKey(n, schema.PodKey{Namespace: p.Namespace, Name: p.Name}), schema.Assignment{Node: n, Pod: q})
}

func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "busybox"}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func report(n schema.NodeName, p *corev1.Pod, phase corev1.PodPhase) schema.PodReport {
	q := *p
	q.Spec.NodeName = string(n)
	q.Status.Phase = phase
	return signed(schema.PodReport{Node: n, Pod: q})
}

// signed is the report of a pod that was once assigned like that.
func signed(r schema.PodReport) schema.PodReport {
	var err error
	if r.Signature, err = clusterKey.Sign(&schema.Assignment{Node: r.Node, Pod: r.Pod}); err != nil {
		panic(err)
	}
	return r
}

// clusterKey is the same in all tests.
var clusterKey = func() *kv.Sealer {
	dir, err := os.MkdirTemp("", "key")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s, err := kv.NewSealer(filepath.Join(dir, "cluster.age"))
	if err != nil {
		panic(err)
	}
	return s
}()

// stored is what the store holds of a pod.
func (c *cluster) stored(name string) *schema.PodReport {
	e, _ := c.actual.Get(kv.ObjectKey(schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: name}))
	return e.Value.Report
}

// An agent is a node's side, with everything it was told.
type agent struct {
	*kv.Agent
	conn *kv.Conn
	stop func()

	mu     sync.Mutex
	wholes int
	deltas []kv.Delta
	pods   map[string]corev1.Pod
	maps   map[string]corev1.ConfigMap
	secret map[string]corev1.Secret
}

func (c *cluster) agent(n schema.NodeName) *agent {
	c.t.Helper()
	conn := c.connect("node", must[kv.Credentials](c.t)(c.server.NodeCredentials(n)), "_INBOX."+string(n))
	a := &agent{Agent: kv.NewAgent(conn, n), conn: conn}
	a.stop = c.run(func(ctx context.Context) error { return a.Run(ctx, a) })
	eventually(c.t, "agent has its set", func() bool { return a.counts() > 0 })
	return a
}

func (a *agent) counts() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wholes
}

// Whole implements kv.AgentHandler.
func (a *agent) Whole(s kv.Set) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wholes++
	a.pods, a.maps, a.secret = map[string]corev1.Pod{}, map[string]corev1.ConfigMap{}, map[string]corev1.Secret{}
	a.take(s.Contents)
}

// Delta implements kv.AgentHandler.
func (a *agent) Delta(d kv.Delta) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deltas = append(a.deltas, d)
	for _, k := range d.Remove {
		switch k.Kind {
		case schema.Pods:
			delete(a.pods, k.Name)
		case schema.ConfigMaps:
			delete(a.maps, k.Name)
		case schema.Secrets:
			delete(a.secret, k.Name)
		}
	}
	a.take(d.Contents)
}

func (a *agent) take(c kv.Contents) {
	for _, x := range c.Assignments {
		a.pods[x.Pod.Name] = x.Pod
	}
	for _, x := range c.ConfigMaps {
		a.maps[x.Name] = x
	}
	for _, x := range c.Secrets {
		a.secret[x.Name] = x
	}
}

func (a *agent) holds(f func(*agent) bool) func() bool {
	return func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return f(a)
	}
}
