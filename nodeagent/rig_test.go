package nodeagent_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// A rig is a machine, its disk and a control plane, in a bubble of its own time.
type rig struct {
	t     *testing.T
	world *world
	data  string
	ctl   *control
	limit int // of starts at once; 0: the default
	probe nodeagent.Probe
	link  nodeagent.Link // instead of ctl
	// die kills the next agent at the call for which it returns true.
	die func(call string, after bool) bool

	handle *handle
	stop   context.CancelFunc
	done   chan error
}

func inBubble(t *testing.T, f func(t *testing.T, r *rig)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, world: newWorld(), data: dir, ctl: newControl()}
		f(t, r)
		r.kill()
	})
}

// begin starts an agent, with the control plane in reach or without.
func (r *rig) begin(connected bool) *handle {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	h := &handle{world: r.world, end: cancel, die: r.die}
	r.die = nil
	cfg := nodeagent.Config{
		Node: "n1", DataDir: r.data, RunDir: r.data, Runtime: h, Volumes: heldVolumes{h},
		NodeIP: "192.0.2.1", StartsAtOnce: r.limit, Logger: slog.New(slog.DiscardHandler),
	}
	if connected {
		cfg.Link = r.ctl
		if r.link != nil {
			cfg.Link = r.link
		}
	}
	r.handle, r.stop, r.done = h, cancel, make(chan error, 1)
	go func() { r.done <- nodeagent.RunWithProbe(ctx, cfg, r.probe) }()
	synctest.Wait()
	return h
}

// kill is kill -9: from now on nothing the agent does takes effect.
func (r *rig) kill() {
	r.t.Helper()
	if r.stop == nil {
		return
	}
	r.world.mu.Lock()
	r.handle.dead = true
	r.world.mu.Unlock()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	r.stop = nil
}

// reboot ends all processes, and the agent.
func (r *rig) reboot() {
	r.kill()
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	for _, p := range r.world.pods {
		p.sandbox = pod.Sandbox{}
		for i := range p.containers {
			if c := &p.containers[i]; c.State == pod.ContainerRunning {
				c.State, c.ExitCode, c.FinishedAt = pod.ContainerExited, 255, time.Now()
			}
		}
	}
}

// after lets time go by and everything come to rest.
func (r *rig) after(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
	synctest.Wait()
}

func (r *rig) containers(uid types.UID) []pod.Container {
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	return r.world.see(uid).Containers
}

// only is the one running container of a pod.
func (r *rig) only(uid types.UID) pod.Container {
	r.t.Helper()
	var alive []pod.Container
	for _, c := range r.containers(uid) {
		if c.State == pod.ContainerRunning {
			alive = append(alive, c)
		}
	}
	if len(alive) != 1 {
		r.t.Fatalf("pod %s: want one running container, there is %+v", uid, r.containers(uid))
	}
	return alive[0]
}

func (r *rig) exit(uid types.UID, code int32) {
	r.t.Helper()
	id := r.only(uid).ID
	r.world.mu.Lock()
	_, _, c := r.world.find(id)
	r.world.exit(uid, c, code)
	r.world.mu.Unlock()
	synctest.Wait()
}

func (r *rig) empty(uid types.UID) {
	r.t.Helper()
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	if r.world.pods[uid] != nil || r.world.volumes[uid] != nil {
		r.t.Fatalf("something is left of %s: %+v", uid, r.world.pods[uid])
	}
}

func (r *rig) records() []string {
	r.t.Helper()
	var names []string
	for _, dir := range []string{"pods", "status"} {
		entries, err := os.ReadDir(filepath.Join(r.data, dir))
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, dir+"/"+e.Name())
		}
	}
	return names
}

// control is the control plane: what it assigned, and what it was told.
type control struct {
	mu       sync.Mutex
	assigned map[schema.PodKey]schema.Assignment
	maps     []corev1.ConfigMap
	secrets  []corev1.Secret
	reports  map[types.UID]schema.PodReport
	messages int
	total    int // reports in all messages
	history  []string
	nodes    []*corev1.Node
	events   map[string]corev1.Event                                                // the newest count of each, by name
	down     error                                                                  // why reports are not taken; nil: they are
	token    func(ctx context.Context, r schema.TokenRequest) (schema.Token, error) // nil: none are given
	h        nodeagent.Handler
}

func newControl() *control {
	return &control{assigned: map[schema.PodKey]schema.Assignment{}, reports: map[types.UID]schema.PodReport{}, events: map[string]corev1.Event{}}
}

func (c *control) Run(ctx context.Context, h nodeagent.Handler) error {
	c.mu.Lock()
	c.h = h
	c.mu.Unlock()
	c.sync()
	<-ctx.Done()
	c.mu.Lock()
	c.h = nil
	c.mu.Unlock()
	return ctx.Err()
}

// sync hands out the whole set.
func (c *control) sync() {
	c.mu.Lock()
	h := c.h
	s := nodeagent.Assigned{ConfigMaps: c.maps, Secrets: c.secrets}
	for _, a := range c.assigned {
		s.Assignments = append(s.Assignments, a)
	}
	c.mu.Unlock()
	if h != nil {
		h.Whole(s)
	}
}

func (c *control) ReportPods(_ context.Context, reports []schema.PodReport) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		return c.down
	}
	c.messages++
	for _, r := range reports {
		c.total++
		c.reports[r.Pod.UID] = r
		c.history = append(c.history, fmt.Sprintf("%s %s gone=%v", r.Pod.Name, r.Pod.Status.Phase, r.Gone))
	}
	return nil
}

func (c *control) ReportNode(_ context.Context, n *corev1.Node) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		return c.down
	}
	c.nodes = append(c.nodes, n)
	return nil
}

func (c *control) ReportEvents(_ context.Context, events []corev1.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		return c.down
	}
	for _, e := range events {
		c.events[e.Name] = e
	}
	return nil
}

// assign assigns pods and tells the agent.
func (r *rig) assign(pods ...*corev1.Pod) {
	r.ctl.mu.Lock()
	var s nodeagent.Assigned
	for _, p := range pods {
		a := schema.Assignment{Node: "n1", Pod: *p}
		r.ctl.assigned[schema.PodKey{Namespace: p.Namespace, Name: p.Name}] = a
		s.Assignments = append(s.Assignments, a)
	}
	h := r.ctl.h
	r.ctl.mu.Unlock()
	if h != nil {
		h.Delta(s, nil)
	}
	synctest.Wait()
}

func (r *rig) delete(p *corev1.Pod, grace int64) {
	p = p.DeepCopy()
	now := metav1.Now()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	r.assign(p)
}

// unassign removes the assignment, as the planner does when the pod is gone.
func (r *rig) unassign(p *corev1.Pod) {
	key := schema.PodKey{Namespace: p.Namespace, Name: p.Name}
	r.ctl.mu.Lock()
	delete(r.ctl.assigned, key)
	h := r.ctl.h
	r.ctl.mu.Unlock()
	h.Delta(nodeagent.Assigned{}, []schema.ObjectKey{{Kind: schema.Pods, Namespace: key.Namespace, Name: key.Name}})
	synctest.Wait()
}

func (r *rig) report(uid types.UID) (schema.PodReport, bool) {
	r.ctl.mu.Lock()
	defer r.ctl.mu.Unlock()
	x, ok := r.ctl.reports[uid]
	return x, ok
}

func (r *rig) heartbeats() int {
	r.ctl.mu.Lock()
	defer r.ctl.mu.Unlock()
	return len(r.ctl.nodes)
}

// waitsFor says why the pod's first container waits, as reported.
func (r *rig) waitsFor(uid types.UID) string {
	r.t.Helper()
	x, ok := r.report(uid)
	if !ok || len(x.Pod.Status.ContainerStatuses) == 0 {
		return "no report"
	}
	if w := x.Pod.Status.ContainerStatuses[0].State.Waiting; w != nil {
		return w.Reason + ": " + w.Message
	}
	return string(x.Pod.Status.Phase)
}

func ready(s corev1.PodStatus) bool {
	for _, c := range s.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// uidOf is the uid of the test's pod of that name.
func uidOf(name string) types.UID {
	return schema.UIDOf(schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: name})
}

func newPod(name string, command ...string) *corev1.Pod {
	if len(command) == 0 {
		command = []string{"serve"}
	}
	grace := int64(30)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: "default", UID: uidOf(name), CreationTimestamp: metav1.Now(),
	}}
	p.Spec = corev1.PodSpec{
		NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{{Name: "web", Image: "web:1", ImagePullPolicy: corev1.PullIfNotPresent, Command: command}},
	}
	return p
}
