package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// restartServer stops the server, does what f does, and starts it where it was.
func (c *cluster) restartServer(f func()) {
	c.t.Helper()
	url := strings.TrimPrefix(c.server.ClientURL(), "nats://")
	c.server.Close()
	f()
	c.startServer(url)
}

func (c *cluster) viewsWhole() bool {
	return c.assignments.Whole() && c.desired.Whole() && c.actual.Whole()
}

func TestEverythingComesBackAfterTheServer(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("a"))
	a := c.agent("n1")
	a.report(t, report("n1", pod("a"), corev1.PodRunning))
	for i := range 3 {
		c.restartServer(func() { eventually(t, "the views know", func() bool { return !c.viewsWhole() }) })
		eventually(t, "the views are whole again", c.viewsWhole)
		name := fmt.Sprint("new", i)
		c.assign("n1", pod(name))
		eventually(t, "a new pod arrives", a.holds(func(a *agent) bool { return len(a.pods) == i+2 }))
		eventually(t, "reports are stored", func() bool {
			return a.ReportPods(t.Context(), []schema.PodReport{report("n1", pod(name), corev1.PodRunning)}) == nil
		})
	}
	for _, d := range a.deltas {
		if len(d.Remove) > 0 {
			t.Errorf("removed: %v", d.Remove)
		}
	}
}

// The JetStream directory is wiped under running pods. Nothing is removed, and
// the agent is asked to say what it runs.
func TestWipedStoreRemovesNoPod(t *testing.T) {
	c := newCluster(t)
	c.desire(configMap("settings", "blue"))
	uses := func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
	}
	for i := range 20 {
		c.assign("n1", pod(fmt.Sprint("p", i), uses))
	}
	a := c.agent("n1")
	var reports []schema.PodReport
	for i := range 20 {
		reports = append(reports, report("n1", pod(fmt.Sprint("p", i), uses), corev1.PodRunning))
	}
	a.report(t, reports...)
	wholes := a.counts()
	c.restartServer(func() {
		if err := os.RemoveAll(filepath.Join(c.dir, "nats")); err != nil {
			t.Fatal(err)
		}
	})
	eventually(t, "the views are whole, and empty", func() bool {
		return c.viewsWhole() && c.assignments.Len() == 0 && c.actual.Len() == 0
	})
	eventually(t, "the agent has fetched its set again", func() bool { return a.counts() > wholes })
	a.mu.Lock()
	for _, d := range a.deltas {
		if len(d.Remove) > 0 {
			t.Errorf("the agent was told to remove %v", d.Remove)
		}
	}
	a.mu.Unlock()
	// With the whole set, an agent says again what it runs; the store is as before.
	eventually(t, "reports are stored", func() bool { return a.ReportPods(t.Context(), reports) == nil })
	if c.actual.Len() != 20 || c.stored("p7").Pod.Status.Phase != corev1.PodRunning {
		t.Errorf("%d pods are stored", c.actual.Len())
	}
	for i := range 20 { // adopted
		c.assign("n1", pod(fmt.Sprint("p", i), uses))
	}
	c.desire(configMap("settings", "blue"))
	eventually(t, "the agent has everything", a.holds(func(a *agent) bool { return len(a.pods) == 20 && len(a.maps) == 1 }))
}

// Another gateway takes over: generations of the old one mean nothing to it, and
// agents find that out without being asked.
func TestAgentsFollowANewGateway(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("a"))
	a := c.agent("n1")
	c.stopGateway()
	c.assign("n1", pod("while-nobody-looked"))
	c.startGateway()
	eventually(t, "the agent has what it missed", a.holds(func(a *agent) bool { return len(a.pods) == 2 }))
	c.assign("n1", pod("after"))
	eventually(t, "deltas go on", a.holds(func(a *agent) bool { return len(a.pods) == 3 }))
}

// A node without pods, too, finds out that there is another gateway; it counts
// as there only once it has fetched its set from that one.
func TestIdleNodeFollowsANewGateway(t *testing.T) {
	c := newCluster(t)
	a := c.agent("n1")
	node := &corev1.Node{}
	node.Name = "n1"
	if err := a.ReportNode(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	c.stopGateway()
	c.startGateway()
	beat := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return a.ReportNode(ctx, node)
	}
	if err := beat(); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("the new gateway has not given the node its set: %v", err)
	}
	eventually(t, "heartbeats have the agent fetch its set", func() bool { return beat() == nil && a.counts() >= 2 })
}

// An assignment that cannot be read is not one that was removed.
func TestPoisonedAssignmentRemovesNoPod(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("a"))
	a := c.agent("n1")
	key := kv.AssignmentKey("n1", schema.PodKey{Namespace: "default", Name: "a"})
	w := kv.Write{Bucket: kv.Assignments, Key: key, Value: []byte("garbage"), Revision: c.revision(kv.Assignments, key)}
	if _, err := c.store.Commit(t.Context(), []kv.Write{w}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is poisoned", func() bool { return len(c.assignments.Poisoned()) == 1 })
	c.assign("n1", pod("b"))
	eventually(t, "others go on", a.holds(func(a *agent) bool { return len(a.pods) == 2 }))
	c.assign("n1", pod("a", func(p *corev1.Pod) { p.Labels = map[string]string{"healed": "yes"} }))
	eventually(t, "it can be healed", a.holds(func(a *agent) bool { return a.pods["a"].Labels["healed"] == "yes" }))
	for _, d := range a.deltas {
		if len(d.Remove) > 0 {
			t.Errorf("removed: %v", d.Remove)
		}
	}
}

// A set far larger than a message goes through.
func TestLargeSets(t *testing.T) {
	c := newCluster(t)
	for i := range 12 {
		c.desire(configMap(fmt.Sprint("m", i), strings.Repeat("x", 900_000)))
	}
	all := func(p *corev1.Pod) {
		for i := range 12 {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: fmt.Sprint("m", i)}}}})
		}
	}
	c.assign("n1", pod("a", all))
	a := c.agent("n1")
	eventually(t, "the set is there", a.holds(func(a *agent) bool { return len(a.maps) == 12 }))
	c.assign("n2", pod("b"))
	b := c.agent("n2")
	c.assign("n2", pod("c", all))
	eventually(t, "the delta is", b.holds(func(a *agent) bool { return len(a.maps) == 12 && a.wholes == 1 }))
	c.remove(kv.Desired, kv.ObjectKey(schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "default", Name: "m3"}))
	eventually(t, "what left the repository is removed", b.holds(func(a *agent) bool { return len(a.maps) == 11 }))
}

// Many nodes at once: each gets its own, and nothing of another's.
func TestManyNodes(t *testing.T) {
	c := newCluster(t)
	const nodes = 30
	for i := range nodes {
		for j := range 3 {
			c.assign(schema.NodeName(fmt.Sprint("n", i)), pod(fmt.Sprintf("p%d-%d", i, j)))
		}
	}
	agents := make([]*agent, nodes)
	for i := range nodes {
		agents[i] = c.agent(schema.NodeName(fmt.Sprint("n", i)))
	}
	for i, a := range agents {
		a.report(t, report(schema.NodeName(fmt.Sprint("n", i)), pod(fmt.Sprintf("p%d-0", i)), corev1.PodRunning))
		c.remove(kv.Assignments, kv.AssignmentKey(schema.NodeName(fmt.Sprint("n", i)), schema.PodKey{Namespace: "default", Name: fmt.Sprintf("p%d-2", i)}))
	}
	for i, a := range agents {
		eventually(t, "each has its own", a.holds(func(a *agent) bool {
			_, first := a.pods[fmt.Sprintf("p%d-0", i)]
			_, second := a.pods[fmt.Sprintf("p%d-1", i)]
			return first && second && len(a.pods) == 2
		}))
	}
	c.gateway.o.Nodes.Close() // the gateway goes; nothing hangs
	c.stopGateway()
}

func TestSilentNodesAreForgotten(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("a"))
	c.agent("n1")
	c.stopGateway()
	c.gateway.forgetSilent(time.Now().Add(time.Minute))
	if len(c.gateway.nodes) != 1 {
		t.Errorf("%d nodes are known", len(c.gateway.nodes))
	}
	c.gateway.forgetSilent(time.Now().Add(nodeSilence + time.Minute))
	if len(c.gateway.nodes) != 0 || len(c.gateway.users) != 0 {
		t.Errorf("%d nodes, %d objects are known", len(c.gateway.nodes), len(c.gateway.users))
	}
}
