package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// resources is an amount of everything a node can run out of.
type resources struct {
	cpu    int64 // thousandths of a core
	memory int64 // bytes
	pods   int64
	other  map[corev1.ResourceName]int64 // extended resources, nil when there are none
}

// What a pod that asks for nothing weighs when nodes are compared, so that such
// pods spread too.
const (
	weightCPU    = 100
	weightMemory = 200 << 20
)

func (r *resources) add(o resources, sign int64) {
	r.cpu += sign * o.cpu
	r.memory += sign * o.memory
	r.pods += sign * o.pods
	for name, v := range o.other {
		if r.other == nil {
			r.other = map[corev1.ResourceName]int64{}
		}
		r.other[name] += sign * v
	}
}

// leaves says whether so much being held of what is offered leaves enough of
// everything that is asked for.
func (r *resources) leaves(asks, offered resources) bool {
	enough := func(want, held, offered int64) bool { return want <= 0 || held+want <= offered }
	if !enough(asks.pods, r.pods, offered.pods) || !enough(asks.cpu, r.cpu, offered.cpu) || !enough(asks.memory, r.memory, offered.memory) {
		return false
	}
	for name, want := range asks.other {
		if !enough(want, r.other[name], offered.other[name]) {
			return false
		}
	}
	return true
}

func weight(r resources) resources {
	w := resources{cpu: r.cpu, memory: r.memory, pods: r.pods}
	if w.cpu == 0 {
		w.cpu = weightCPU
	}
	if w.memory == 0 {
		w.memory = weightMemory
	}
	return w
}

// requests is what a pod holds on its node: its containers together with the
// sidecars, or the hungriest moment of its start, whichever is more.
func requests(p *corev1.Pod) resources {
	var running, sidecars, starting resources
	for i := range p.Spec.Containers {
		running.add(fromList(p.Spec.Containers[i].Resources.Requests), 1)
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		asks := fromList(c.Resources.Requests)
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars.add(asks, 1)
			starting = most(starting, sidecars)
			continue
		}
		asks.add(sidecars, 1)
		starting = most(starting, asks)
	}
	running.add(sidecars, 1)
	total := most(running, starting)
	total.add(fromList(p.Spec.Overhead), 1)
	total.pods = 1
	return total
}

// fromList counts what is accounted for: storage on the node's disk is not.
func fromList(l corev1.ResourceList) resources {
	var r resources
	for name, q := range l {
		switch name {
		case corev1.ResourceCPU:
			r.cpu = q.MilliValue()
		case corev1.ResourceMemory:
			r.memory = q.Value()
		case corev1.ResourcePods:
			r.pods = q.Value()
		case corev1.ResourceStorage, corev1.ResourceEphemeralStorage:
		default:
			r.addOther(name, q)
		}
	}
	return r
}

func (r *resources) addOther(name corev1.ResourceName, q resource.Quantity) {
	if r.other == nil {
		r.other = map[corev1.ResourceName]int64{}
	}
	r.other[name] += q.Value()
}

func most(a, b resources) resources {
	m := resources{cpu: max(a.cpu, b.cpu), memory: max(a.memory, b.memory), pods: max(a.pods, b.pods)}
	for _, other := range []map[corev1.ResourceName]int64{a.other, b.other} {
		for name, v := range other {
			if m.other == nil {
				m.other = map[corev1.ResourceName]int64{}
			}
			m.other[name] = max(m.other[name], v)
		}
	}
	return m
}

// A hostPort is a port of the node itself.
type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

const everyAddress = "0.0.0.0"

func hostPorts(p *corev1.Pod) []hostPort {
	var all []hostPort
	collect := func(c *corev1.Container) {
		for _, port := range c.Ports {
			if port.HostPort == 0 {
				continue
			}
			h := hostPort{ip: port.HostIP, protocol: port.Protocol, port: port.HostPort}
			if h.ip == "" {
				h.ip = everyAddress
			}
			if h.protocol == "" {
				h.protocol = corev1.ProtocolTCP
			}
			all = append(all, h)
		}
	}
	for i := range p.Spec.Containers {
		collect(&p.Spec.Containers[i])
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			collect(c)
		}
	}
	return all
}

// clashes: two pods cannot listen on one port of one address, and the address
// 0.0.0.0 is all of them.
func (h hostPort) clashes(o hostPort) bool {
	return h.port == o.port && h.protocol == o.protocol &&
		(h.ip == o.ip || h.ip == everyAddress || o.ip == everyAddress)
}
