package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/nodeagent/volume"
	"github.com/pawl-project/pawl/schema"
)

// A listed is a control plane that is a list of pods, and keeps what it is told.
type listed struct {
	mu       sync.Mutex
	handler  nodeagent.Handler
	assigned nodeagent.Assigned
	status   map[types.UID]corev1.PodStatus
	running  map[types.UID]time.Time // since when it was told that a pod runs
	gone     map[types.UID]time.Time
	events   map[string]corev1.Event
	node     *corev1.Node
	changed  chan struct{} // closed and made anew with each report
}

func newListed() *listed {
	return &listed{
		status: map[types.UID]corev1.PodStatus{}, running: map[types.UID]time.Time{}, gone: map[types.UID]time.Time{},
		events: map[string]corev1.Event{}, changed: make(chan struct{}),
	}
}

// Run hands out the list.
func (l *listed) Run(ctx context.Context, h nodeagent.Handler) error {
	l.mu.Lock()
	l.handler = h
	all := l.assigned
	l.mu.Unlock()
	h.Whole(all)
	<-ctx.Done()
	return ctx.Err()
}

func (l *listed) ReportPods(_ context.Context, reports []schema.PodReport) error {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range reports {
		l.status[r.Pod.UID] = r.Pod.Status
		if _, ok := l.running[r.Pod.UID]; !ok && r.Pod.Status.Phase == corev1.PodRunning {
			l.running[r.Pod.UID] = now
		}
		if r.Gone {
			l.gone[r.Pod.UID] = now
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

func (l *listed) ReportNode(_ context.Context, n *corev1.Node) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.node = n
	return nil
}

func (l *listed) ReportEvents(_ context.Context, events []corev1.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.events[e.Namespace+"/"+e.Name] = e
	}
	return nil
}

// delta assigns pods, and removes by name.
func (l *listed) delta(pods []*corev1.Pod, remove ...*corev1.Pod) {
	l.mu.Lock()
	h := l.handler
	l.mu.Unlock()
	var a nodeagent.Assigned
	for _, p := range pods {
		a.Assignments = append(a.Assignments, schema.Assignment{Node: "n1", Pod: *p.DeepCopy()})
	}
	var gone []schema.ObjectKey
	for _, p := range remove {
		gone = append(gone, schema.ObjectKey{Kind: schema.Pods, Namespace: p.Namespace, Name: p.Name})
	}
	h.Delta(a, gone)
}

// said says whether an event about the pod, or the node for nil, holds the text.
func (l *listed) said(p *corev1.Pod, reason, text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if (p == nil || e.InvolvedObject.UID == p.UID) && e.Reason == reason && strings.Contains(e.Message, text) {
			return true
		}
	}
	return false
}

// forget drops the events and what the node said of itself, so that what is there
// afterwards was said afterwards.
func (l *listed) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.events)
	l.node = nil
}

func (l *listed) of(p *corev1.Pod) corev1.PodStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status[p.UID]
}

func (l *listed) isGone(p *corev1.Pod) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.gone[p.UID].IsZero()
}

func (l *listed) condition(kind corev1.NodeConditionType) corev1.NodeCondition {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.node == nil {
		return corev1.NodeCondition{}
	}
	for _, c := range l.node.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// An agentRig is an agent on a real runtime with real volumes.
type agentRig struct {
	*rig
	ctl  *listed
	stop func()
}

func newAgentRig(tb testing.TB, g *rig) *agentRig {
	a := &agentRig{rig: g, ctl: newListed(), stop: func() {}}
	tb.Cleanup(func() { a.end() })
	return a
}

func (a *agentRig) agentDir() string { return filepath.Join(a.opts.DataDir, "agent") }

func (a *agentRig) volumes() *volume.Volumes {
	return volume.New(volume.Options{DataDir: filepath.Join(a.opts.DataDir, "volumes"), RunDir: filepath.Join(a.opts.RunDir, "volumes")})
}

// begin starts the agent, with the control plane in reach or without.
func (a *agentRig) begin(connected bool) {
	a.tb.Helper()
	cfg := nodeagent.Config{
		Node: "n1", DataDir: a.agentDir(), RunDir: a.opts.RunDir, Runtime: a.rt, Volumes: a.volumes(),
		NodeIP: "127.0.0.1", Heartbeat: time.Second, Logger: a.opts.Logger,
	}
	if connected {
		cfg.Link = a.ctl
	}
	ctx, cancel := context.WithCancel(a.ctx)
	done := make(chan error, 1)
	go func() { done <- nodeagent.Run(ctx, cfg) }()
	a.stop = func() {
		cancel()
		if err := <-done; err != nil {
			a.tb.Errorf("Run: %v", err)
		}
	}
	if connected {
		eventually(a.tb, "the agent begins", func() bool {
			a.ctl.mu.Lock()
			defer a.ctl.mu.Unlock()
			return a.ctl.handler != nil
		})
	}
}

func (a *agentRig) end() {
	a.stop()
	a.stop = func() {}
	a.ctl.mu.Lock()
	a.ctl.handler = nil
	a.ctl.mu.Unlock()
}

// restart ends the agent and its runtime and starts the next.
func (a *agentRig) restart() {
	a.tb.Helper()
	a.end()
	a.reopen()
	a.begin(true)
}

// sleeper is a pod that runs until it is told to stop, and then stops at once.
func (a *agentRig) sleeper(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := a.pod(name).Pod
	p.CreationTimestamp = metav1.Now()
	p.Spec = corev1.PodSpec{
		NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: ptr.To(int64(1)),
		Containers: []corev1.Container{{
			Name: "main", Image: "busybox:1.37", ImagePullPolicy: corev1.PullIfNotPresent,
			Command: []string{"sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"},
		}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

// assign assigns pods, and keeps them on the list.
func (a *agentRig) assign(pods ...*corev1.Pod) {
	a.ctl.mu.Lock()
	for _, p := range pods {
		a.ctl.assigned.Assignments = append(a.ctl.assigned.Assignments, schema.Assignment{Node: "n1", Pod: *p.DeepCopy()})
	}
	a.ctl.mu.Unlock()
	a.ctl.delta(pods)
}

// run assigns pods and awaits that they run.
func (a *agentRig) run(pods ...*corev1.Pod) {
	a.tb.Helper()
	a.assign(pods...)
	for _, p := range pods {
		a.awaitRunning(p)
	}
}

func (a *agentRig) awaitRunning(p *corev1.Pod) {
	a.tb.Helper()
	defer a.tellFailed(p)
	eventually(a.tb, p.Name+" runs", func() bool { return a.ctl.of(p).Phase == corev1.PodRunning })
}

// tellFailed shows what is known of the pod when the test has failed.
func (a *agentRig) tellFailed(p *corev1.Pod) {
	if a.tb.Failed() {
		text, _ := json.Marshal(a.ctl.of(p)) //nolint:errchkjson // for a person to read
		a.tb.Logf("%s: %s", p.Name, text)
	}
}

// delete marks pods for deletion, and takes them from the list.
func (a *agentRig) delete(grace int64, pods ...*corev1.Pod) {
	now := metav1.Now()
	marked := make([]*corev1.Pod, len(pods))
	for i, p := range pods {
		marked[i] = p.DeepCopy()
		marked[i].DeletionTimestamp, marked[i].DeletionGracePeriodSeconds = &now, &grace
	}
	a.ctl.mu.Lock()
	kept := a.ctl.assigned.Assignments[:0:0]
	for _, x := range a.ctl.assigned.Assignments {
		keep := true
		for _, p := range pods {
			keep = keep && x.Pod.UID != p.UID
		}
		if keep {
			kept = append(kept, x)
		}
	}
	a.ctl.assigned.Assignments = kept
	a.ctl.mu.Unlock()
	a.ctl.delta(marked)
}

func (a *agentRig) awaitGone(pods ...*corev1.Pod) {
	a.tb.Helper()
	for _, p := range pods {
		eventually(a.tb, p.Name+" is gone", func() bool { return a.ctl.isGone(p) })
	}
}

// remove deletes pods, awaits that they are gone, and has the agent forget them.
func (a *agentRig) remove(pods ...*corev1.Pod) {
	a.tb.Helper()
	a.delete(1, pods...)
	a.awaitGone(pods...)
	a.ctl.delta(nil, pods...)
}

// only is the pod's one container that runs.
func (a *agentRig) only(p *corev1.Pod) pod.Container {
	a.tb.Helper()
	s, err := a.rt.SeenPod(a.ctx, p.UID)
	if err != nil {
		a.tb.Fatal(err)
	}
	var alive []pod.Container
	for _, c := range s.Containers {
		if c.State == pod.ContainerRunning {
			alive = append(alive, c)
		}
	}
	if len(alive) != 1 {
		a.tb.Fatalf("%s: want one running container, there is %+v", p.Name, s.Containers)
	}
	return alive[0]
}

func (a *agentRig) pids(pods ...*corev1.Pod) string {
	a.tb.Helper()
	var b strings.Builder
	for _, p := range pods {
		fmt.Fprintf(&b, "%s %d ", p.Name, a.pidOf(a.only(p).ID))
	}
	return b.String()
}
