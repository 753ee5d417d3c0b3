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

// nodes makes a cluster of nodes.
func nodes(all ...*corev1.Node) *Cluster {
	c := NewCluster()
	for _, o := range all {
		c.Describe(schema.NodeName(o.Name), o)
	}
	return c
}

func machine(name, cpu, memory string, change func(*corev1.Node)) *corev1.Node {
	o := &corev1.Node{}
	o.Name = name
	o.Labels = map[string]string{corev1.LabelHostname: name}
	o.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	o.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if change != nil {
		change(o)
	}
	return o
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
	c := nodes(machine("c", "4", "8Gi", nil), machine("b", "4", "8Gi", nil), machine("a", "4", "8Gi", nil))
	var got []schema.NodeName
	for range 6 {
		name, err := c.Place(asking("500m", "100Mi"))
		if err != nil {
			t.Fatal(err)
		}
		c.Hold(name, asking("500m", "100Mi"), true)
		got = append(got, name)
	}
	if fmt.Sprint(got) != "[a b c a b c]" {
		t.Errorf("placed %v", got)
	}
}

func TestPodsThatAskForNothingSpreadToo(t *testing.T) {
	c := nodes(machine("a", "4", "8Gi", nil), machine("b", "4", "8Gi", nil))
	c.Hold("a", asking("", ""), true)
	if name, err := c.Place(asking("", "")); err != nil || name != "b" {
		t.Errorf("placed on %q, %v", name, err)
	}
}

func TestALopsidedNodeCountsAsFuller(t *testing.T) {
	c := nodes(machine("a", "4", "8Gi", nil), machine("b", "4", "8Gi", nil))
	c.Hold("a", asking("3", "1Gi"), true) // mean 44 %, but three quarters of the cpu
	c.Hold("b", asking("2", "4Gi"), true) // mean 50 %
	if name, err := c.Place(asking("500m", "512Mi")); err != nil || name != "b" {
		t.Errorf("placed on %q, %v", name, err)
	}
}

func TestWhyNotIsSaidAsKubernetesSaysIt(t *testing.T) {
	cordoned := machine("cordoned", "4", "8Gi", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	silent := machine("silent", "4", "8Gi", func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
	small := machine("small", "1", "1Gi", nil)
	crowded := machine("crowded", "4", "8Gi", func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1") })
	gpu := asking("", "")
	gpu.Spec.Containers[0].Resources.Requests["example.org/gpu"] = resource.MustParse("1")
	picky := asking("", "")
	picky.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	named := asking("", "")
	named.Spec.NodeName = "elsewhere"
	for _, c := range []struct {
		pod   *corev1.Pod
		nodes []*corev1.Node
		want  string
	}{
		{asking("2", "2Gi"), nil, "no nodes available to schedule pods"},
		{asking("2", "2Gi"), []*corev1.Node{small}, "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."},
		{asking("8", ""), []*corev1.Node{small, crowded, cordoned, silent},
			"0/4 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, 1 node(s) were unschedulable, 2 Insufficient cpu."},
		{port("", 80, corev1.ProtocolTCP), []*corev1.Node{crowded}, "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
		{gpu, []*corev1.Node{small}, "0/1 nodes are available: 1 Insufficient example.org/gpu."},
		{picky, []*corev1.Node{small}, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."},
		{named, []*corev1.Node{small}, "0/1 nodes are available: 1 node(s) didn't match the requested node name."},
	} {
		all := nodes(c.nodes...)
		for _, n := range c.nodes {
			if n == crowded {
				all.Hold("crowded", asking("", ""), true)
				listens := port("", 80, "")
				listens.Name = "listens"
				all.Hold("crowded", listens, true)
			}
		}
		_, err := all.Place(c.pod)
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
		if !errors.Is(err, schema.ErrUnavailable) {
			t.Errorf("%v: time mends it", err)
		}
	}
}

func TestANamedNodeTakesThePodEvenWhenCordoned(t *testing.T) {
	n := machine("n", "1", "1Gi", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	p := asking("500m", "")
	p.Spec.NodeName = "n"
	c := nodes(n)
	if name, err := c.Place(p); err != nil || name != "n" {
		t.Fatalf("placed on %q, %v", name, err)
	}
	c.Hold("n", asking("600m", ""), true)
	if _, err := c.Place(p); err == nil {
		t.Error("placed where there is no room")
	}
}

func TestPortsClashByAddressAndProtocol(t *testing.T) {
	all := nodes(machine("n", "1", "1Gi", nil))
	all.Hold("n", port("10.0.0.1", 53, corev1.ProtocolUDP), true)
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
		if _, err := all.Place(c.pod); (err == nil) != c.fits {
			t.Errorf("%+v: %v", c.pod.Spec.Containers[0].Ports[0], err)
		}
	}
	all.Release("n", port("10.0.0.1", 53, corev1.ProtocolUDP))
	if _, err := all.Place(port("", 53, corev1.ProtocolUDP)); err != nil {
		t.Errorf("the port is free again: %v", err)
	}
	if n := all.nodes["n"]; n.holds.pods != 0 || len(n.pods)+len(n.ports) != 0 {
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
