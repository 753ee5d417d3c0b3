package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/natsserver"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A flock is the whole control plane as the daemon runs it, following a
// repository, with nodes that speak the node protocol and run nothing.
type flock struct {
	t      *testing.T
	work   string // the repository
	server *natsserver.Server

	assignments *kv.View[schema.Assignment]
	actual      *kv.View[kv.Actual]
	nodes       map[schema.NodeName]*fakeNode
}

func newFlock(t *testing.T) *flock {
	t.Helper()
	dir := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	f := &flock{t: t, work: filepath.Join(dir, "work"), nodes: map[schema.NodeName]*fakeNode{}}
	f.git(dir, "init", "-q", "-b", "main", f.work)
	var err error
	f.server, err = natsserver.Start(t.Context(), natsserver.Options{Dir: filepath.Join(dir, "nats"), KeysDir: filepath.Join(dir, "keys"), Logger: quiet})
	f.must(err)
	t.Cleanup(f.server.Close)
	control, err := f.server.ControlCredentials()
	f.must(err)
	gateway, err := f.server.GatewayCredentials()
	f.must(err)
	door, err := access.Open(access.Options{DataDir: dir, TLS: access.TLSOptions{Listen: "127.0.0.1:0"}, Logger: quiet})
	f.must(err)
	cfg := Config{
		DataDir: dir, RunDir: filepath.Join(dir, "run"), HTTP: "127.0.0.1:0", Access: door,
		Control: kv.ConnOptions{InProcess: f.server, Credentials: control, Name: "reconciler", Logger: quiet},
		Nodes:   kv.ConnOptions{InProcess: f.server, Credentials: gateway, Name: "gateway", Logger: quiet},
		Git:     Git{URL: f.work, Branch: "main", Interval: 50 * time.Millisecond}, Logger: quiet,
	}
	conn, err := kv.Connect(t.Context(), kv.ConnOptions{InProcess: f.server, Credentials: control, Name: "test", Logger: quiet})
	f.must(err)
	t.Cleanup(conn.Close)
	store, err := kv.OpenStore(t.Context(), conn, kv.StoreOptions{Replicas: 1})
	f.must(err)
	f.background(func(ctx context.Context) error { return Run(ctx, cfg) })
	f.assignments = kv.NewView(store, kv.Assignments, kv.DecodeAssignment)
	f.actual = kv.NewView(store, kv.Actuals, kv.DecodeActual)
	f.background(f.assignments.Run)
	f.background(f.actual.Run)
	f.until("views are whole", func() bool { return f.assignments.Whole() && f.actual.Whole() })
	return f
}

func (f *flock) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *flock) git(dir string, args ...string) {
	f.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/nonexistent",
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.org", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.org")
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// background runs g until the test ends, or until what it returns is called.
func (f *flock) background(g func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("run: %v", err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

func (f *flock) until(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within 60 s: %s", what)
		}
	}
}

// push commits these files, by name; "" removes one.
func (f *flock) push(files map[string]string) {
	f.t.Helper()
	for name, text := range files {
		path := filepath.Join(f.work, name)
		if text == "" {
			f.must(os.Remove(path))
			continue
		}
		f.must(os.WriteFile(path, []byte(text), 0o600))
	}
	f.git(f.work, "add", "-A")
	f.git(f.work, "commit", "-q", "-m", "more of it")
}

// A fakeNode does at once what it is told, and remembers what it ever ran.
type fakeNode struct {
	flock *flock
	agent *kv.Agent
	conn  *kv.Conn
	stop  func() // the agent; its pods stay
	poke  chan struct{}

	mu      sync.Mutex
	object  corev1.Node
	pods    map[string]corev1.Pod // that it was told to run, by name
	ran     map[types.UID]int     // how often it started a pod
	running map[types.UID]bool
	told    bool
}

// join makes nodes, each with what change gives it, and waits until they are known.
func (f *flock) join(n int, change func(i int, o *corev1.Node)) {
	f.t.Helper()
	for i := range n {
		o := corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%03d", i)}}
		o.Labels = map[string]string{corev1.LabelHostname: o.Name}
		room := corev1.ResourceList{corev1.ResourceCPU: quantity("4"), corev1.ResourceMemory: quantity("8Gi"), corev1.ResourcePods: quantity("110")}
		o.Status.Capacity, o.Status.Allocatable = room, room
		o.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		change(i, &o)
		node := &fakeNode{flock: f, object: o, pods: map[string]corev1.Pod{}, ran: map[types.UID]int{}, running: map[types.UID]bool{}, poke: make(chan struct{}, 1)}
		f.nodes[schema.NodeName(o.Name)] = node
		node.come()
	}
	f.until("the nodes are known", func() bool {
		for name := range f.nodes {
			if f.node(name) == nil {
				return false
			}
		}
		return true
	})
}

// node is what the store holds of a node; nil: nothing.
func (f *flock) node(name schema.NodeName) *corev1.Node {
	n, _ := f.stored(schema.Nodes, string(name)).(*corev1.Node)
	return n
}

// stored is what the store holds of an actual object; nil: nothing.
func (f *flock) stored(kind schema.Kind, name string) schema.Object {
	k := schema.ObjectKey{Kind: kind, Name: name}
	if kind != schema.Nodes {
		k.Namespace = "default"
	}
	e, _ := f.actual.Get(kv.ObjectKey(k))
	return e.Value.Object
}

// come starts the node's agent.
func (n *fakeNode) come() {
	f := n.flock
	f.t.Helper()
	name := schema.NodeName(n.object.Name)
	credentials, err := f.server.NodeCredentials(name)
	f.must(err)
	n.conn, err = kv.Connect(f.t.Context(), kv.ConnOptions{InProcess: f.server, Credentials: credentials, Name: "node", InboxPrefix: "_INBOX." + string(name), Logger: slog.New(slog.DiscardHandler)})
	f.must(err)
	n.mu.Lock()
	n.told = false
	n.mu.Unlock()
	n.agent = kv.NewAgent(n.conn, name)
	listen := f.background(func(ctx context.Context) error { return n.agent.Run(ctx, n) })
	work := f.background(n.work)
	n.stop = func() { work(); listen(); n.conn.Close() }
	f.t.Cleanup(n.conn.Close)
}

// say changes what the node says of itself.
func (n *fakeNode) say(change func(*corev1.Node)) {
	n.mu.Lock()
	change(&n.object)
	n.mu.Unlock()
	n.wake()
}

func (n *fakeNode) wake() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// Whole implements kv.AgentHandler.
func (n *fakeNode) Whole(s kv.Set) {
	n.mu.Lock()
	n.told = true
	n.pods = map[string]corev1.Pod{}
	for _, a := range s.Assignments {
		n.pods[a.Pod.Name] = a.Pod
	}
	n.mu.Unlock()
	n.wake()
}

// Delta implements kv.AgentHandler.
func (n *fakeNode) Delta(d kv.Delta) {
	n.mu.Lock()
	for _, k := range d.Remove {
		if k.Kind == schema.Pods {
			delete(n.pods, k.Name)
		}
	}
	for _, a := range d.Assignments {
		n.pods[a.Pod.Name] = a.Pod
	}
	n.mu.Unlock()
	n.wake()
}

// work reports itself and its pods whenever it is woken, and until all of that
// was taken.
func (n *fakeNode) work(ctx context.Context) error {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.poke:
		case <-again.C:
		}
		object, reports, told := n.obey()
		if !told {
			continue
		}
		err := n.agent.ReportPods(ctx, reports)
		if nodeErr := n.agent.ReportNode(ctx, &object); err == nil {
			err = nodeErr
		}
		if err != nil {
			again.Reset(50 * time.Millisecond)
		}
	}
}

// obey starts and ends what it is told.
func (n *fakeNode) obey() (corev1.Node, []schema.PodReport, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var reports []schema.PodReport
	for _, name := range slices.Sorted(maps.Keys(n.pods)) {
		p := n.pods[name]
		r := schema.PodReport{Node: schema.NodeName(n.object.Name), Pod: p}
		if p.DeletionTimestamp != nil {
			r.Gone = true
			delete(n.running, p.UID)
		} else {
			if !n.running[p.UID] {
				n.running[p.UID] = true
				n.ran[p.UID]++
			}
			r.Pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
		}
		reports = append(reports, r)
	}
	return *n.object.DeepCopy(), reports, n.told
}

// bound is where the pods of an application are, by name; those that end too.
func (f *flock) bound(app string) map[string]schema.NodeName {
	all := map[string]schema.NodeName{}
	for e := range f.assignments.All() {
		if e.Value.Pod.Labels["app"] == app {
			all[e.Value.Pod.Name] = e.Value.Node
		}
	}
	return all
}

// run waits until an application has so many pods, all of which run.
func (f *flock) run(app string, want int) {
	f.t.Helper()
	f.until(fmt.Sprintf("%d pods of %s run", want, app), func() bool {
		count := 0
		for e := range f.assignments.All() {
			p := &e.Value.Pod
			if p.Labels["app"] != app {
				continue
			}
			r, _ := f.actual.Get(kv.ObjectKey(schema.ObjectKey{Kind: schema.Pods, Namespace: p.Namespace, Name: p.Name}))
			if r.Value.Report == nil || r.Value.Report.Node != e.Value.Node || r.Value.Report.Pod.Status.Phase != corev1.PodRunning {
				return false
			}
			count++
		}
		return count == want
	})
}

// revisions is at which revision each assignment was written.
func (f *flock) revisions() map[string]uint64 {
	all := map[string]uint64{}
	for e := range f.assignments.All() {
		all[e.Key] = e.Revision
	}
	return all
}

// everything is revisions, and those of all that is known of what is.
func (f *flock) everything() map[string]uint64 {
	all := f.revisions()
	for e := range f.actual.All() {
		all["actual "+e.Key] = e.Revision
	}
	return all
}

// checkOnce: every pod was started once, on one node, and none was ended.
func (f *flock) checkOnce() {
	f.t.Helper()
	starts := map[types.UID]int{}
	for _, n := range f.nodes {
		n.mu.Lock()
		for uid, count := range n.ran {
			starts[uid] += count
			if !n.running[uid] {
				f.t.Errorf("node %s ended a pod", n.object.Name)
			}
		}
		n.mu.Unlock()
	}
	for uid, count := range starts {
		if count != 1 {
			f.t.Errorf("pod %s was started %d times", uid, count)
		}
	}
	if len(starts) != f.assignments.Len() {
		f.t.Errorf("%d pods ever ran, %d are assigned", len(starts), f.assignments.Len())
	}
}
