package placement

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

func node(name string, cpu, memory string, change func(*corev1.Node)) *Node {
	o := &corev1.Node{}
	o.Name = name
	o.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	o.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if change != nil {
		change(o)
	}
	n := NewNode(schema.NodeName(name))
	n.Describe(o)
	return n
}

func asking(cpu, memory string) *corev1.Pod {
	l := corev1.ResourceList{}
	if cpu != "" {
		l[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	p := &corev1.Pod{}
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: l}}}
	return p
}

func port(ip string, number int32, protocol corev1.Protocol) *corev1.Pod {
	p := asking("", "")
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostIP: ip, HostPort: number, Protocol: protocol}}
	return p
}

func TestTheLeastLoadedNodeWinsAndNamesBreakTies(t *testing.T) {
	nodes := []*Node{node("c", "4", "8Gi", nil), node("b", "4", "8Gi", nil), node("a", "4", "8Gi", nil)}
	var got []schema.NodeName
	for range 6 {
		name, err := Place(asking("500m", "100Mi"), nodes)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if n.Name == name {
				n.Hold(asking("500m", "100Mi"))
			}
		}
		got = append(got, name)
	}
	if fmt.Sprint(got) != "[a b c a b c]" {
		t.Errorf("placed %v", got)
	}
}

func TestPodsThatAskForNothingSpreadToo(t *testing.T) {
	nodes := []*Node{node("a", "4", "8Gi", nil), node("b", "4", "8Gi", nil)}
	nodes[0].Hold(asking("", ""))
	if name, err := Place(asking("", ""), nodes); err != nil || name != "b" {
		t.Errorf("placed on %q, %v", name, err)
	}
}

func TestALopsidedNodeCountsAsFuller(t *testing.T) {
	nodes := []*Node{node("a", "4", "8Gi", nil), node("b", "4", "8Gi", nil)}
	nodes[0].Hold(asking("3", "1Gi")) // mean 44 %, but three quarters of the cpu
	nodes[1].Hold(asking("2", "4Gi")) // mean 50 %
	if name, err := Place(asking("500m", "512Mi"), nodes); err != nil || name != "b" {
		t.Errorf("placed on %q, %v", name, err)
	}
}

func TestWhyNotIsSaidAsKubernetesSaysIt(t *testing.T) {
	cordoned := node("cordoned", "4", "8Gi", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	silent := node("silent", "4", "8Gi", func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
	small := node("small", "1", "1Gi", nil)
	crowded := node("crowded", "4", "8Gi", func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1") })
	crowded.Hold(asking("", ""))
	crowded.Hold(port("", 80, ""))
	gpu := asking("", "")
	gpu.Spec.Containers[0].Resources.Requests["example.org/gpu"] = resource.MustParse("1")
	picky := asking("", "")
	picky.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	named := asking("", "")
	named.Spec.NodeName = "elsewhere"
	for _, c := range []struct {
		pod   *corev1.Pod
		nodes []*Node
		want  string
	}{
		{asking("2", "2Gi"), nil, "no nodes available to schedule pods"},
		{asking("2", "2Gi"), []*Node{small}, "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."},
		{asking("8", ""), []*Node{small, crowded, cordoned, silent},
			"0/4 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) were unschedulable, 2 Insufficient cpu."},
		{port("", 80, corev1.ProtocolTCP), []*Node{crowded}, "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
		{gpu, []*Node{small}, "0/1 nodes are available: 1 Insufficient example.org/gpu."},
		{picky, []*Node{small}, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."},
		{named, []*Node{small}, "0/1 nodes are available: 1 node(s) didn't match the requested node name."},
	} {
		_, err := Place(c.pod, c.nodes)
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
		if !errors.Is(err, schema.ErrUnavailable) {
			t.Errorf("%v: time mends it", err)
		}
	}
}

func TestANamedNodeTakesThePodEvenWhenCordoned(t *testing.T) {
	n := node("n", "1", "1Gi", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	p := asking("500m", "")
	p.Spec.NodeName = "n"
	if name, err := Place(p, []*Node{n}); err != nil || name != "n" {
		t.Fatalf("placed on %q, %v", name, err)
	}
	n.Hold(asking("600m", ""))
	if _, err := Place(p, []*Node{n}); err == nil {
		t.Error("placed where there is no room")
	}
}

func TestPortsClashByAddressAndProtocol(t *testing.T) {
	n := node("n", "1", "1Gi", nil)
	n.Hold(port("10.0.0.1", 53, corev1.ProtocolUDP))
	for _, c := range []struct {
		pod  *corev1.Pod
		fits bool
	}{
		{port("10.0.0.1", 53, corev1.ProtocolUDP), false},
		{port("", 53, corev1.ProtocolUDP), false},
		{port("10.0.0.2", 53, corev1.ProtocolUDP), true},
		{port("10.0.0.1", 53, ""), true}, // TCP
		{port("10.0.0.1", 54, corev1.ProtocolUDP), true},
	} {
		if _, err := Place(c.pod, []*Node{n}); (err == nil) != c.fits {
			t.Errorf("%+v: %v", c.pod.Spec.Containers[0].Ports[0], err)
		}
	}
	n.Release(port("10.0.0.1", 53, corev1.ProtocolUDP))
	if _, err := Place(port("", 53, corev1.ProtocolUDP), []*Node{n}); err != nil {
		t.Errorf("the port is free again: %v", err)
	}
	if !n.Empty() {
		t.Error("the account is not empty")
	}
}

func TestInitContainersCountByTheirHungriestMoment(t *testing.T) {
	p := asking("100m", "")
	c := func(cpu string, sidecar bool) corev1.Container {
		c := corev1.Container{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}
		if sidecar {
			c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		}
		return c
	}
	p.Spec.InitContainers = []corev1.Container{c("300m", false), c("200m", true), c("250m", false)}
	if got := requests(p).cpu; got != 450 { // the third with the sidecar beside it
		t.Errorf("asks for %dm, want 450m", got)
	}
	p.Spec.InitContainers = p.Spec.InitContainers[:2]
	if got := requests(p).cpu; got != 300 {
		t.Errorf("asks for %dm, want 300m", got)
	}
}

func BenchmarkPlaceAmong1000Nodes(b *testing.B) {
	var nodes []*Node
	for i := range 1000 {
		nodes = append(nodes, node(fmt.Sprintf("n%04d", i), "4", "8Gi", nil))
	}
	p := asking("100m", "100Mi")
	for b.Loop() {
		if _, err := Place(p, nodes); err != nil {
			b.Fatal(err)
		}
	}
}
