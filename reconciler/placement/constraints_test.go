package placement

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

// three is a cluster of three nodes: a and b in zone left, c in zone right.
func three() *Cluster {
	zone := func(z string) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Labels["zone"], n.Labels["cores"] = z, "4" }
	}
	return nodes(machine("a", "4", "8Gi", zone("left")), machine("b", "4", "8Gi", zone("left")), machine("c", "4", "8Gi", func(n *corev1.Node) {
		zone("right")(n)
		n.Labels["cores"] = "16"
	}))
}

// pod is one whose spec is given as YAML, with the label app.
func pod(t testing.TB, name, app, spec string) *corev1.Pod {
	t.Helper()
	p := asking("", "")
	p.Name, p.Namespace, p.UID, p.Labels = name, "default", types.UID(name), map[string]string{"app": app, "hash": "1"}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	if len(p.Spec.Containers) == 0 {
		p.Spec.Containers = asking("", "").Spec.Containers
	}
	return p
}

func TestWhatAPodSaysOfWhereItGoes(t *testing.T) {
	required := func(kind, term string) string {
		return "affinity: {" + kind + ": {requiredDuringSchedulingIgnoredDuringExecution: [" + term + "]}}"
	}
	nodeTerm := func(term string) string {
		return "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [" + term + "]}}}"
	}
	db := func(more string) string {
		return "{labelSelector: {matchLabels: {app: db}}, topologyKey: zone" + more + "}"
	}
	spread := func(more string) string {
		return "topologySpreadConstraints: [{maxSkew: 1, labelSelector: {matchLabels: {app: db}}, " + more + "}]"
	}
	const selector, affinity, anti, existing, skew, missing = "node(s) didn't match Pod's node affinity/selector", "node(s) didn't match pod affinity rules",
		"node(s) didn't match pod anti-affinity rules", "node(s) didn't satisfy existing pods anti-affinity rules",
		"node(s) didn't match pod topology spread constraints", "node(s) didn't match pod topology spread constraints (missing required label)"
	all := func(why string) string { return "0/3 nodes are available: 3 " + why + "." }
	// On node c there is a pod of app db, and one of db in the namespace other on
	// b; on a there is one that keeps away from app shy in its zone.
	for _, c := range []struct{ name, app, spec, want string }{
		{"In", "web", nodeTerm("{matchExpressions: [{key: zone, operator: In, values: [right, up]}]}"), "c"},
		{"NotIn", "web", nodeTerm("{matchExpressions: [{key: zone, operator: NotIn, values: [left]}]}"), "c"},
		{"Exists", "web", nodeTerm("{matchExpressions: [{key: gpu, operator: Exists}]}"), all(selector)},
		{"DoesNotExist", "web", nodeTerm("{matchExpressions: [{key: zone, operator: DoesNotExist}]}"), all(selector)},
		{"Gt", "web", nodeTerm("{matchExpressions: [{key: cores, operator: Gt, values: ['8']}]}"), "c"},
		{"Lt", "web", nodeTerm("{matchExpressions: [{key: cores, operator: Lt, values: ['8']}, {key: kubernetes.io/hostname, operator: NotIn, values: [a]}]}"), "b"},
		{"Gt of no number", "web", nodeTerm("{matchExpressions: [{key: zone, operator: Gt, values: ['8']}]}"), all(selector)},
		{"matchFields", "web", nodeTerm("{matchFields: [{key: metadata.name, operator: In, values: [b]}]}"), "b"},
		{"one term of two", "web", nodeTerm("{matchExpressions: [{key: gpu, operator: Exists}]}, {matchFields: [{key: metadata.name, operator: In, values: [b]}]}"), "b"},
		{"empty term", "web", nodeTerm("{}"), all(selector)},
		{"with nodeSelector", "web", "nodeSelector: {zone: right}\n" + nodeTerm("{matchFields: [{key: metadata.name, operator: In, values: [b]}]}"), all(selector)},
		{"preferred node", "web", "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 10, preference: {matchExpressions: [{key: zone, operator: In, values: [right]}]}}]}}", "c"},
		{"near db", "web", required("podAffinity", db("")), "c"},
		{"near db of other", "web", required("podAffinity", db(", namespaces: [other]")), "a"},
		{"near db of labelled namespaces", "web", required("podAffinity", db(", namespaceSelector: {matchLabels: {team: o}}")), "a"},
		{"near db of all namespaces", "web", required("podAffinity", db(", namespaceSelector: {}")), "a"},
		{"near nobody", "web", required("podAffinity", "{labelSelector: {matchLabels: {app: cache}}, topologyKey: zone}"), all(affinity)},
		{"first of its group", "web", required("podAffinity", "{labelSelector: {matchLabels: {app: web}}, topologyKey: zone}"), "a"},
		{"near db of the same hash", "web", required("podAffinity", db(", matchLabelKeys: [hash]")), "c"},
		{"near db of another hash", "web", required("podAffinity", db(", mismatchLabelKeys: [hash]")), all(affinity)},
		{"unknown topology", "web", required("podAffinity", "{labelSelector: {matchLabels: {app: db}}, topologyKey: rack}"), all(affinity)},
		{"away from db", "web", required("podAntiAffinity", db(", namespaceSelector: {}")), all(anti)},
		{"away from db here", "web", required("podAntiAffinity", db("")), "a"},
		{"others keep away", "shy", "", "c"},
		{"others keep away, and so does it", "shy", required("podAntiAffinity", db("")),
			"0/3 nodes are available: 1 node(s) didn't match pod anti-affinity rules, 2 node(s) didn't satisfy existing pods anti-affinity rules."},
		{"preferred near db", "web", "affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, podAffinityTerm: " + db("") + "}]}}", "c"},
		{"preferred away from db", "web", "affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, podAffinityTerm: " + db("") + "}]}}", "a"},
		{"spread", "db", spread("topologyKey: zone, whenUnsatisfiable: DoNotSchedule"), "a"},
		{"spread, if possible", "db", spread("topologyKey: zone, whenUnsatisfiable: ScheduleAnyway"), "a"},
		{"spread only where it may be", "db", "nodeSelector: {zone: right}\n" + spread("topologyKey: zone, whenUnsatisfiable: DoNotSchedule"), "c"},
		{"spread over all", "db", "nodeSelector: {zone: right}\n" + spread("topologyKey: zone, whenUnsatisfiable: DoNotSchedule, nodeAffinityPolicy: Ignore"),
			"0/3 nodes are available: 1 " + skew + ", 2 " + selector + "."},
		{"too few domains", "db", "nodeSelector: {zone: right}\n" + spread("topologyKey: zone, whenUnsatisfiable: DoNotSchedule, minDomains: 2"),
			"0/3 nodes are available: 1 " + skew + ", 2 " + selector + "."},
		{"no such domain", "db", spread("topologyKey: rack, whenUnsatisfiable: DoNotSchedule"), all(missing)},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := three()
			all.DescribeNamespace("other", map[string]string{"team": "o"})
			all.Hold("c", pod(t, "db", "db", ""), true)
			other := pod(t, "db", "db", "")
			other.Namespace = "other"
			all.Hold("b", other, true)
			all.Hold("a", pod(t, "grump", "grump", required("podAntiAffinity", "{labelSelector: {matchLabels: {app: shy}}, topologyKey: zone}")), true)
			all.Hold("b", asking("", ""), true)
			all.Hold("c", asking("", ""), true)
			name, err := all.Place(pod(t, "new", c.app, c.spec))
			got := string(name)
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTaints(t *testing.T) {
	tainted := nodes(machine("a", "4", "8Gi", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "gpu", Value: "yes", Effect: corev1.TaintEffectNoSchedule}}
	}), machine("b", "4", "8Gi", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "slow", Effect: corev1.TaintEffectPreferNoSchedule}}
	}), machine("c", "4", "8Gi", func(n *corev1.Node) { n.Spec.Unschedulable = true }))
	for spec, want := range map[string]string{
		"": "b",
		"tolerations: [{key: gpu, operator: Equal, value: 'yes', effect: NoSchedule}]": "a",
		"tolerations: [{key: gpu, value: 'no'}]":                                       "b",
		"tolerations: [{operator: Exists}]":                                            "a",
		"tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]":     "c",
		"nodeSelector: {kubernetes.io/hostname: a}": "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, " +
			"1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable.",
	} {
		name, err := tainted.Place(pod(t, "p", "p", spec))
		got := string(name)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", spec, got, want)
		}
	}
}

// A pod is not put where it would be driven away at once, though it names the node.
func TestANodeThatDrivesPodsAwayTakesNone(t *testing.T) {
	sick := nodes(machine("bed", "4", "8Gi", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "sick", Effect: corev1.TaintEffectNoExecute}}
	}))
	for spec, fits := range map[string]bool{
		"":              false,
		"nodeName: bed": false,
		"nodeName: bed\ntolerations: [{key: sick, operator: Exists, tolerationSeconds: 0}]":  false,
		"nodeName: bed\ntolerations: [{key: sick, operator: Exists, tolerationSeconds: 20}]": true,
		"tolerations: [{key: sick, operator: Exists, tolerationSeconds: -1}]":                false,
		"tolerations: [{key: sick, operator: Exists}]":                                       true,
	} {
		name, err := sick.Place(pod(t, "p", "p", spec))
		if fits != (name == "bed") || err != nil && err.Error() != "0/1 nodes are available: 1 node(s) had untolerated taint {sick: }." {
			t.Errorf("%s\ngoes to %q, %v", spec, name, err)
		}
	}
}

func TestANoExecuteTaintDrivesPodsAway(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	added := metav1.NewTime(noon.Add(time.Minute))
	taints := []corev1.Taint{{Key: "sick", Effect: corev1.TaintEffectNoExecute, TimeAdded: &added}, {Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}
	for spec, want := range map[string]time.Duration{
		"": time.Minute,
		"tolerations: [{key: sick, operator: Exists}]":                                                                   -1,
		"tolerations: [{key: sick, operator: Exists, tolerationSeconds: 20}]":                                            80 * time.Second,
		"tolerations: [{operator: Exists, tolerationSeconds: 300}, {key: sick, operator: Exists, tolerationSeconds: 5}]": 65 * time.Second,
		"tolerations: [{key: sick, operator: Exists, effect: NoSchedule}]":                                               time.Minute,
	} {
		at, evicts := Evicts(taints, pod(t, "p", "p", spec), noon)
		if got := at.Sub(noon); evicts != (want >= 0) || evicts && got != want {
			t.Errorf("%s: evicts %v after %v, want %v", spec, evicts, got, want)
		}
	}
}

// ranked is a pod of a priority.
func ranked(name, cpu string, priority int32, age time.Duration) *corev1.Pod {
	p := asking(cpu, "")
	p.Name, p.Namespace, p.UID, p.Spec.Priority = name, "default", types.UID(name), ptr.To(priority)
	p.CreationTimestamp = metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(-age))
	return p
}

func TestTheLeastImportantPodsMakeRoom(t *testing.T) {
	for _, c := range []struct {
		name string
		on   map[string][]*corev1.Pod
		pod  *corev1.Pod
		want string
	}{
		{"the fewest", map[string][]*corev1.Pod{"a": {ranked("a1", "2", 1, 0), ranked("a2", "2", 1, 0)}, "b": {ranked("b1", "4", 1, 0)}}, ranked("p", "3", 5, 0), "b [b1]"},
		{"none that is needless", map[string][]*corev1.Pod{"a": {ranked("a1", "1", 1, 0), ranked("a2", "2", 2, 0), ranked("a3", "1", 0, 0)}}, ranked("p", "1", 5, 0), "a [a3]"},
		{"the least important of all nodes", map[string][]*corev1.Pod{"a": {ranked("a1", "4", 3, 0)}, "b": {ranked("b1", "2", 2, 0), ranked("b2", "2", 2, 0)}}, ranked("p", "4", 5, 0), "b [b1 b2]"},
		{"the youngest of equals", map[string][]*corev1.Pod{"a": {ranked("a1", "4", 1, time.Hour)}, "b": {ranked("b1", "4", 1, time.Minute)}}, ranked("p", "4", 5, 0), "b [b1]"},
		{"no equal", map[string][]*corev1.Pod{"a": {ranked("a1", "4", 5, 0)}}, ranked("p", "4", 5, 0), "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."},
		{"not where it never fits", map[string][]*corev1.Pod{"a": {ranked("a1", "4", 1, 0)}}, ranked("p", "5", 5, 0), "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := NewCluster()
			for name, pods := range c.on {
				all.Describe(schema.NodeName(name), machine(name, "4", "8Gi", nil))
				for _, p := range pods {
					all.Hold(schema.NodeName(name), p, true)
				}
			}
			_, err := all.Place(c.pod)
			if err == nil {
				t.Fatal("it has a place")
			}
			room, ok := all.MakeRoom(c.pod, "", err)
			var names []string
			for _, v := range room.Victims {
				names = append(names, v.Name)
			}
			got := fmt.Sprintf("%s %v", room.Node, names)
			if !ok {
				u := new(Unfit)
				errors.As(err, &u)
				got = "preemption: " + u.Preemption
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			for name, pods := range c.on { // and nothing has changed
				n := all.nodes[schema.NodeName(name)]
				if len(n.pods) != len(pods) || n.holds.pods != int64(len(pods)) {
					t.Errorf("node %s: %d pods on the account", name, n.holds.pods)
				}
			}
		})
	}
}

// A pod waits for those that end already, with an anti-affinity too, and ends
// none beside them.
func TestPodsThatEndMakeRoomToo(t *testing.T) {
	all := nodes(machine("a", "4", "8Gi", nil), machine("b", "4", "8Gi", nil))
	going := ranked("a1", "4", 1, 0)
	going.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	all.Hold("a", going, true)
	all.Hold("b", ranked("b1", "4", 0, 0), true)
	p := ranked("p", "4", 5, 0)
	_, err := all.Place(p)
	room, ok := all.MakeRoom(p, "", err)
	if !ok || room.Node != "a" || len(room.Victims) > 0 {
		t.Errorf("%v %v", room, ok)
	}
	p.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever)
	all.Release("a", going)
	all.Hold("a", ranked("a2", "4", 0, 0), true)
	_, err = all.Place(p)
	if _, ok := all.MakeRoom(p, "", err); ok || err.Error() != "0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never." {
		t.Error(err)
	}
}
