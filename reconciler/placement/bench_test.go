package placement

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

// BenchmarkPlace10000PodsOn1000Nodes places and holds them all: 1,000
// applications of ten pods each, or one of 10,000. Beside the time it says how
// many times that is what it took just before with pods that say nothing.
func BenchmarkPlace10000PodsOn1000Nodes(b *testing.B) {
	affinity := func(kind, term string) string { return "affinity: {" + kind + ": {" + term + "}}" }
	required := func(key string) string {
		return "requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: APP}}, topologyKey: " + key + "}]"
	}
	preferred := func(key string) string {
		return "preferredDuringSchedulingIgnoredDuringExecution: [{weight: 10, podAffinityTerm: {labelSelector: {matchLabels: {app: APP}}, topologyKey: " + key + "}}]"
	}
	spread := func(key, when string) string {
		return "topologySpreadConstraints: [{maxSkew: 1, topologyKey: " + key + ", whenUnsatisfiable: " + when + ", labelSelector: {matchLabels: {app: APP}}}]"
	}
	const host, zone = "kubernetes.io/hostname", "zone"
	for _, c := range []struct {
		name, spec string
		apps       int
		taint      corev1.TaintEffect // of every other node
	}{
		{"plain", "", 1000, ""},
		{"selector", "nodeSelector: {zone: z1}", 1000, ""},
		{"node-affinity", affinity("nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [z1, z2, z3, z4, z5, z6, z7, z8]}]}]}"), 1000, ""},
		{"node-preferred", affinity("nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution: [{weight: 10, preference: {matchExpressions: [{key: zone, operator: In, values: [z1, z2]}]}}]"), 1000, ""},
		{"taint-tolerated", "tolerations: [{key: gpu, operator: Exists}]", 1000, corev1.TaintEffectNoSchedule},
		{"taint-preferred", "", 1000, corev1.TaintEffectPreferNoSchedule},
		{"near", affinity("podAffinity", required(zone)), 1000, ""},
		{"near-preferred", affinity("podAffinity", preferred(zone)), 1000, ""},
		{"apart", affinity("podAntiAffinity", required(host)), 1000, ""},
		{"apart-preferred", affinity("podAntiAffinity", preferred(host)), 1000, ""},
		{"apart-preferred-one-app", affinity("podAntiAffinity", preferred(host)), 1, ""},
		{"spread-hard", spread(zone, "DoNotSchedule"), 1000, ""},
		{"spread-hard-host", spread(host, "DoNotSchedule"), 1000, ""},
		{"spread-hard-host-one-app", spread(host, "DoNotSchedule"), 1, ""},
		{"spread-soft", spread(zone, "ScheduleAnyway"), 1000, ""},
		{"spread-soft-host-one-app", spread(host, "ScheduleAnyway"), 1, ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			var plain, took time.Duration
			for b.Loop() {
				b.StopTimer()
				all, pods := thousandNodes(""), tenThousand(b, 1000, "")
				start := time.Now()
				placeAll(b, all, pods)
				plain += time.Since(start)
				all, pods = thousandNodes(c.taint), tenThousand(b, c.apps, c.spec)
				b.StartTimer()
				start = time.Now()
				placeAll(b, all, pods)
				took += time.Since(start)
			}
			b.ReportMetric(float64(took)/float64(plain), "×plain")
		})
	}
}

// BenchmarkMakeRoom finds room for important pods on 1,000 full nodes, one after
// the other: the victims end at once.
func BenchmarkMakeRoom(b *testing.B) {
	apart := "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: APP}}, topologyKey: kubernetes.io/hostname}]}}"
	for name, spec := range map[string]string{"plain": "", "apart": apart} {
		b.Run(name, func(b *testing.B) {
			all := thousandNodes("")
			for i, p := range tenThousand(b, 1000, "") {
				p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("6400m")}
				all.Hold(schema.NodeName(fmt.Sprintf("n%04d", i%1000)), p, true)
			}
			important := pod(b, "important", "important", strings.ReplaceAll(spec, "APP", "important"))
			important.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("12")}
			important.Spec.Priority = ptr.To[int32](5)
			for b.Loop() {
				_, err := all.Place(important)
				room, ok := all.MakeRoom(important, "", err)
				if !ok || len(room.Victims) != 2 {
					b.Fatal(room, err)
				}
			}
		})
	}
}

func placeAll(b *testing.B, all *Cluster, pods []*corev1.Pod) {
	for _, p := range pods {
		n, err := all.Place(p)
		if err != nil {
			b.Fatal(err)
		}
		all.Hold(n, p, true)
	}
}

// thousandNodes are in ten zones; every other one has a taint, if it is to have one.
func thousandNodes(taint corev1.TaintEffect) *Cluster {
	all := NewCluster()
	for i := range 1000 {
		name := fmt.Sprintf("n%04d", i)
		all.Describe(schema.NodeName(name), machine(name, "64", "256Gi", func(n *corev1.Node) {
			n.Labels["zone"] = fmt.Sprint("z", i%10)
			if taint != "" && i%2 == 0 {
				n.Spec.Taints = []corev1.Taint{{Key: "gpu", Effect: taint}}
			}
		}))
	}
	return all
}

func tenThousand(b *testing.B, apps int, spec string) []*corev1.Pod {
	var pods []*corev1.Pod
	for i := range apps {
		app := fmt.Sprintf("app-%d", i)
		like := pod(b, "like", app, strings.ReplaceAll(spec, "APP", app))
		like.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
		for j := range 10000 / apps {
			p := like.DeepCopy()
			p.Name = fmt.Sprintf("%s-%d", app, j)
			p.UID = types.UID(p.Name)
			pods = append(pods, p)
		}
	}
	return pods
}
