package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// app is a Deployment whose pods say where they go, in lines of their spec.
func app(name string, replicas int, spec string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers: [{name: main, image: "%[1]s:1", resources: {requests: {cpu: 10m}}}]
%[3]s`, name, replicas, spec)
}

const (
	onSSD   = "      nodeSelector: {disk: ssd}\n"
	onDB    = "      nodeSelector: {role: db}\n      tolerations: [{key: dedicated, value: db, effect: NoSchedule}]\n"
	byZone  = "      topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: zoned}}}]\n"
	isApart = "      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: apart}}, topologyKey: kubernetes.io/hostname}]}}\n"
	isNear  = "      affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: apart}}, topologyKey: kubernetes.io/hostname}]}}\n"
)

// 200 nodes take pods of every sort of constraint that come by Git; some nodes
// go away and come back, while more pods come. All land where they may, none is
// doubled, moved, ended or assigned twice, and in the end nothing is written any
// more.
func TestAFlockOfNodesKeepsItsPods(t *testing.T) {
	f := newFlock(t)
	f.join(200, func(i int, o *corev1.Node) {
		o.Labels[corev1.LabelTopologyZone] = fmt.Sprint("z", i%4)
		if i%2 == 0 {
			o.Labels["disk"] = "ssd"
		}
		if i%10 == 0 {
			o.Labels["role"] = "db"
			o.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule}}
		}
	})
	f.push(map[string]string{
		"web.yaml": app("web", 200, ""), "ssd.yaml": app("ssd", 100, onSSD), "db.yaml": app("db", 30, onDB),
		"zoned.yaml": app("zoned", 42, byZone), "apart.yaml": app("apart", 100, isApart), "near.yaml": app("near", 40, isNear),
	})
	first := map[string]int{"web": 200, "ssd": 100, "db": 30, "zoned": 42, "apart": 100, "near": 40}
	for _, name := range slices.Sorted(maps.Keys(first)) {
		f.run(name, first[name])
	}
	f.checkPlaces()
	before := f.revisions()

	var away []*fakeNode
	for i := range 20 {
		n := f.nodes[schema.NodeName(fmt.Sprintf("n%03d", i*7+1))]
		if i%2 == 0 { // half of them say so before
			n.say(func(o *corev1.Node) { o.Status.Conditions[0].Status = corev1.ConditionFalse })
			f.until("the node is known not to be ready", func() bool {
				return f.node(schema.NodeName(n.object.Name)).Status.Conditions[0].Status == corev1.ConditionFalse
			})
		}
		n.stop()
		away = append(away, n)
	}
	f.push(map[string]string{"web.yaml": app("web", 300, ""), "ssd.yaml": app("ssd", 130, onSSD), "zoned.yaml": app("zoned", 62, byZone), "apart.yaml": app("apart", 150, isApart)})
	second := map[string]int{"web": 300, "ssd": 130, "db": 30, "zoned": 62, "apart": 150, "near": 40}
	f.until("all have a node", func() bool {
		for name, want := range second {
			if len(f.bound(name)) != want {
				return false
			}
		}
		return true
	})
	for e := range f.assignments.All() {
		n := f.nodes[e.Value.Node].object
		if _, old := before[e.Key]; !old && n.Status.Conditions[0].Status != corev1.ConditionTrue {
			t.Errorf("pod %s came to %s, which is not ready", e.Value.Pod.Name, n.Name)
		}
	}
	for _, n := range away {
		n.say(func(o *corev1.Node) { o.Status.Conditions[0].Status = corev1.ConditionTrue })
		n.come()
	}
	for _, name := range slices.Sorted(maps.Keys(second)) {
		f.run(name, second[name])
	}
	f.checkPlaces()
	f.checkOnce()
	after := f.revisions()
	for k, revision := range before {
		if after[k] != revision {
			t.Errorf("assignment %s was written at %d, and again at %d", k, revision, after[k])
		}
	}
	f.until("nothing is written any more", func() bool {
		quiet := f.everything()
		<-time.After(300 * time.Millisecond)
		return maps.Equal(quiet, f.everything())
	})
	for name, want := range second {
		if d, _ := f.stored(schema.Deployments, name).(*appsv1.Deployment); d == nil || int(d.Status.AvailableReplicas) != want {
			t.Errorf("%s is not complete: %v", name, d)
		}
	}
}

// A node whose disk is full gets no pods but those that tolerate that, keeps the
// ones it has, and gets others again once there is room.
func TestANodeWithoutRoomOnItsDiskGetsNoPods(t *testing.T) {
	f := newFlock(t)
	f.join(2, func(int, *corev1.Node) {})
	full := f.nodes["n000"]
	f.push(map[string]string{"before.yaml": app("before", 4, "")})
	f.run("before", 4)
	stays := f.bound("before")
	pressure := func(status corev1.ConditionStatus, taints int) {
		t.Helper()
		full.say(func(o *corev1.Node) {
			o.Status.Conditions = append(o.Status.Conditions[:1:1], corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: status})
		})
		f.until("the taint is as the condition", func() bool { return len(f.node("n000").Spec.Taints) == taints })
	}
	pressure(corev1.ConditionTrue, 1)
	f.push(map[string]string{
		"during.yaml": app("during", 6, ""),
		"bears.yaml":  app("bears", 2, "      nodeSelector: {kubernetes.io/hostname: n000}\n      tolerations: [{key: node.kubernetes.io/disk-pressure, operator: Exists}]\n"),
	})
	f.run("during", 6)
	f.run("bears", 2)
	for p, n := range f.bound("during") {
		if n != "n001" {
			t.Errorf("pod %s came to %s, which has no room on its disk", p, n)
		}
	}
	pressure(corev1.ConditionFalse, 0)
	f.push(map[string]string{"after.yaml": app("after", 2, "")}) // n000 is the emptier one
	f.run("after", 2)
	for p, n := range f.bound("after") {
		if n != "n000" {
			t.Errorf("pod %s came to %s", p, n)
		}
	}
	if !maps.Equal(stays, f.bound("before")) {
		t.Errorf("pods were at %v, are at %v", stays, f.bound("before"))
	}
	f.checkOnce()
}

// checkPlaces: every pod is where it may be.
func (f *flock) checkPlaces() {
	f.t.Helper()
	zones, hosts := map[string]int{"z0": 0, "z1": 0, "z2": 0, "z3": 0}, map[schema.NodeName]bool{}
	for _, n := range f.bound("apart") {
		if hosts[n] {
			f.t.Errorf("two pods that keep apart are on %s", n)
		}
		hosts[n] = true
	}
	for e := range f.assignments.All() {
		n, name := f.nodes[e.Value.Node].object, e.Value.Pod.Name
		switch e.Value.Pod.Labels["app"] {
		case "ssd":
			if n.Labels["disk"] != "ssd" {
				f.t.Errorf("pod %s is on %s, without ssd", name, n.Name)
			}
		case "zoned":
			zones[n.Labels[corev1.LabelTopologyZone]]++
		case "near":
			if !hosts[e.Value.Node] {
				f.t.Errorf("pod %s is on %s, and nobody it wants to be near", name, n.Name)
			}
		}
		if db := e.Value.Pod.Labels["app"] == "db"; db != (n.Labels["role"] == "db") {
			f.t.Errorf("pod %s is on %s, which has role %q", name, n.Name, n.Labels["role"])
		}
	}
	counts := slices.Sorted(maps.Values(zones))
	if counts[len(counts)-1]-counts[0] > 1 {
		f.t.Errorf("pods by zone: %v", zones)
	}
}
