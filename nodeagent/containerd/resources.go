package containerd

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// oom_score_adj by quality of service, as the kubelet sets it: who asked for
// nothing goes first.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

const cfsPeriod = 100_000 // microseconds

// The bounds of cgroup v1's cpu.shares, and the least quota of a period, in
// microseconds.
const (
	leastShares = 2
	mostShares  = 262144
	leastQuota  = 1000
)

// resources are the kernel's numbers for a container or a pod.
type resources struct {
	shares uint64 // cgroup v1's cpu.shares
	quota  int64  // microseconds per cfsPeriod; 0 for no limit
	memory int64  // bytes; 0 for no limit
	pids   int64  // processes and threads; 0 for no limit
}

func sharesOf(milli int64) uint64 {
	return min(max(leastShares, uint64(max(0, milli))*1024/1000), mostShares)
}

func quotaOf(milli int64) int64 {
	if milli <= 0 {
		return 0
	}
	return max(leastQuota, milli*cfsPeriod/1000)
}

func resourcesOf(rr *corev1.ResourceRequirements) resources {
	return resources{
		shares: sharesOf(requestOf(rr, corev1.ResourceCPU).MilliValue()),
		quota:  quotaOf(rr.Limits.Cpu().MilliValue()),
		memory: rr.Limits.Memory().Value(),
	}
}

// requestOf is what is asked for; where nothing is said, what is allowed.
func requestOf(rr *corev1.ResourceRequirements, name corev1.ResourceName) *apiresource.Quantity {
	q, asked := rr.Requests[name]
	if !asked {
		q = rr.Limits[name]
	}
	return &q
}

// podResources are the numbers for the pod's own cgroup, as the kubelet has
// them: by what its containers ask for together it is weighed against other
// pods, and what they may take together is a limit when each of them has one.
// pids is the node's limit for a pod.
func podResources(p *corev1.Pod, pids int64) resources {
	res := resources{shares: leastShares, pids: max(0, pids)}
	class := pod.QOS(p)
	if class == corev1.PodQOSBestEffort {
		return res
	}
	res.shares = sharesOf(sum(p, func(c *corev1.Container) int64 {
		return requestOf(&c.Resources, corev1.ResourceCPU).MilliValue()
	}))
	milli := func(c *corev1.Container) int64 { return c.Resources.Limits.Cpu().MilliValue() }
	bytes := func(c *corev1.Container) int64 { return c.Resources.Limits.Memory().Value() }
	if everyContainer(p, milli) {
		res.quota = quotaOf(sum(p, milli))
	}
	if everyContainer(p, bytes) {
		res.memory = sum(p, bytes)
	}
	return res
}

// everyContainer says whether of is above 0 for each of the pod's containers.
func everyContainer(p *corev1.Pod, of func(*corev1.Container) int64) bool {
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if of(&list[i]) <= 0 {
				return false
			}
		}
	}
	return true
}

// sum is the most that runs at one time: all containers and sidecars, or one
// init container with the sidecars before it.
func sum(p *corev1.Pod, of func(*corev1.Container) int64) int64 {
	var sidecars, most, all int64
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if sidecar(c) {
			sidecars += of(c)
			most = max(most, sidecars)
			continue
		}
		most = max(most, sidecars+of(c))
	}
	for i := range p.Spec.Containers {
		all += of(&p.Spec.Containers[i])
	}
	return max(sidecars+all, most)
}

// sidecar says whether an init container runs beside the others.
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// A setting is a file of a cgroup, and what is written there.
type setting struct {
	controller string // of v1
	file       string
	value      string
}

// settings1 are the settings of a v1 cgroup, in the order to write them.
func (r resources) settings1() []setting {
	all := []setting{{"cpu", "cpu.shares", strconv.FormatUint(r.shares, 10)}}
	if r.quota > 0 {
		all = append(all,
			setting{"cpu", "cpu.cfs_period_us", strconv.Itoa(cfsPeriod)},
			setting{"cpu", "cpu.cfs_quota_us", strconv.FormatInt(r.quota, 10)})
	}
	if r.memory > 0 {
		all = append(all, setting{"memory", "memory.limit_in_bytes", strconv.FormatInt(r.memory, 10)})
	}
	if r.pids > 0 {
		all = append(all, setting{"pids", "pids.max", strconv.FormatInt(r.pids, 10)})
	}
	return all
}

// settings2 are the same of a v2 cgroup.
func (r resources) settings2() []setting {
	all := []setting{{"cpu", "cpu.weight", strconv.FormatUint(weight(r.shares), 10)}}
	if r.quota > 0 {
		all = append(all, setting{"cpu", "cpu.max", fmt.Sprintf("%d %d", r.quota, cfsPeriod)})
	}
	if r.memory > 0 {
		all = append(all, setting{"memory", "memory.max", strconv.FormatInt(r.memory, 10)})
	}
	if r.pids > 0 {
		all = append(all, setting{"pids", "pids.max", strconv.FormatInt(r.pids, 10)})
	}
	return all
}

// linuxResources are a container's limits for runc. A limit of memory is one of
// memory and swap together, so that nobody gets more than it by swapping; on v2
// all processes of a container are killed with the one that ran out of memory,
// as in Kubernetes.
func (h host) linuxResources(c *corev1.Container) *specs.LinuxResources {
	res := resourcesOf(&c.Resources)
	l := &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &res.shares}}
	if res.quota > 0 {
		period := uint64(cfsPeriod)
		l.CPU.Quota, l.CPU.Period = &res.quota, &period
	}
	if res.memory > 0 {
		l.Memory = &specs.LinuxMemory{Limit: &res.memory}
		if h.swap {
			l.Memory.Swap = &res.memory
		}
	}
	if h.v2() && h.memory2 {
		l.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return l
}

// nodeCritical is the priority class of pods without which a node is none.
const nodeCritical = "system-node-critical"

// oomScore is what the kernel's out-of-memory killer is told of a container.
func (h host) oomScore(p *corev1.Pod, c *corev1.Container) int {
	return max(oomScore(p, c, totalMemory()), h.lowestOOM)
}

// oomScore is the kubelet's formula: the less a container asked for, the sooner
// it goes. total is the machine's memory in bytes.
func oomScore(p *corev1.Pod, c *corev1.Container, total int64) int {
	class := pod.QOS(p)
	switch {
	case p.Spec.PriorityClassName == nodeCritical, class == corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case class == corev1.PodQOSBestEffort:
		return oomBestEffort
	case total <= 0:
		return oomBestEffort - 1
	}
	asked := requestOf(&c.Resources, corev1.ResourceMemory).Value()
	if sidecar(c) {
		asked = max(asked, leastMemory(p)) // it must not go before those that it serves
	}
	score := 1000 - int(1000*min(asked, total)/total)
	return min(max(score, 1000+oomGuaranteed), oomBestEffort-1)
}

// leastMemory is the least that a container of the pod asks for.
func leastMemory(p *corev1.Pod) int64 {
	least := int64(math.MaxInt64)
	for i := range p.Spec.Containers {
		least = min(least, requestOf(&p.Spec.Containers[i].Resources, corev1.ResourceMemory).Value())
	}
	return least
}

// totalMemory of the machine in bytes; 0 when unknown.
var totalMemory = sync.OnceValue(func() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		slog.Warn("the machine's memory is unknown", "err", err)
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
})
