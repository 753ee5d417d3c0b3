package containerd

import (
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// oom_score_adj by quality of service, as the kubelet sets it: who asked for
// nothing goes first.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

const cfsPeriod = 100_000 // microseconds

// resources are the kernel's numbers for a container or a pod.
type resources struct {
	shares uint64 // cgroup v1's cpu.shares
	quota  int64  // microseconds per cfsPeriod; 0 for no limit
	memory int64  // bytes; 0 for no limit
}

func resourcesOf(rr *corev1.ResourceRequirements) resources {
	cpu, asked := rr.Requests[corev1.ResourceCPU]
	limit, limited := rr.Limits[corev1.ResourceCPU]
	if !asked && limited {
		cpu = limit
	}
	res := resources{shares: max(2, uint64(cpu.MilliValue())*1024/1000)}
	if limited && !limit.IsZero() {
		res.quota = max(1000, limit.MilliValue()*cfsPeriod/1000)
	}
	if memory, ok := rr.Limits[corev1.ResourceMemory]; ok {
		res.memory = memory.Value()
	}
	return res
}

// podShares weighs the pod against others: the sum of what its containers ask
// for. Memory is limited per container alone.
func podShares(p *corev1.Pod) uint64 {
	var sum uint64
	for i := range p.Spec.Containers {
		sum += resourcesOf(&p.Spec.Containers[i].Resources).shares
	}
	var most uint64
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		shares := resourcesOf(&c.Resources).shares
		if c.RestartPolicy != nil { // a sidecar: it runs beside the others
			sum += shares
			continue
		}
		most = max(most, shares)
	}
	return max(sum, most)
}

// linuxResources are a container's limits for runc.
func linuxResources(c *corev1.Container) *specs.LinuxResources {
	res := resourcesOf(&c.Resources)
	l := &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &res.shares}}
	if res.quota > 0 {
		period := uint64(cfsPeriod)
		l.CPU.Quota, l.CPU.Period = &res.quota, &period
	}
	if res.memory > 0 {
		l.Memory = &specs.LinuxMemory{Limit: &res.memory}
	}
	return l
}

// oomScore is what the kernel's out-of-memory killer is told of a container.
func (h host) oomScore(p *corev1.Pod, c *corev1.Container) int {
	score := oomBestEffort
	switch pod.QOS(p) {
	case corev1.PodQOSGuaranteed:
		score = oomGuaranteed
	case corev1.PodQOSBurstable:
		memory := c.Resources.Requests[corev1.ResourceMemory]
		score = 999
		if total := totalMemory(); total > 0 {
			score = int(1000 - 1000*memory.Value()/total)
		}
		score = min(max(score, 1000+oomGuaranteed), oomBestEffort-1)
	}
	return max(score, h.lowestOOM)
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
