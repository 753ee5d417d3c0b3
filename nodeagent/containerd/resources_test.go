package containerd

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// sharesTable is Kubernetes' own: MilliCPUToShares, MilliCPUToQuota, and the
// kubelet's conversion to cgroup v2.
func TestShares(t *testing.T) {
	for _, c := range []struct {
		milli  int64
		shares uint64
		weight uint64
		quota  int64
	}{
		{0, 2, 1, 0},
		{1, 2, 1, 1000}, // at least 1 ms
		{2, 2, 1, 1000},
		{5, 5, 1, 1000},
		{9, 9, 1, 1000},
		{10, 10, 1, 1000},
		{50, 51, 2, 5000},
		{100, 102, 4, 10000},
		{250, 256, 10, 25000},
		{500, 512, 20, 50000},
		{1000, 1024, 39, 100000},
		{1500, 1536, 59, 150000},
		{4000, 4096, 157, 400000},
		{256000, 262144, 10000, 25600000},
		{1000000, 262144, 10000, 100000000},
	} {
		if got := sharesOf(c.milli); got != c.shares {
			t.Errorf("%dm: shares %d, want %d", c.milli, got, c.shares)
		}
		if got := weight(c.shares); got != c.weight {
			t.Errorf("%d shares: weight %d, want %d", c.shares, got, c.weight)
		}
		if got := quotaOf(c.milli); got != c.quota {
			t.Errorf("%dm: quota %d, want %d", c.milli, got, c.quota)
		}
	}
}

// asking makes a container of "cpu request/cpu limit memory request/memory
// limit", "-" for none.
func asking(name, text string) corev1.Container {
	c := corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}}
	for i, pair := range strings.Fields(text) {
		what := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}[i]
		request, limit, _ := strings.Cut(pair, "/")
		if request != "-" {
			c.Resources.Requests[what] = resource.MustParse(request)
		}
		if limit != "-" {
			c.Resources.Limits[what] = resource.MustParse(limit)
		}
	}
	return c
}

// podOf makes a pod of lines "[init|sidecar] resources".
func podAsking(lines ...string) *corev1.Pod {
	p := &corev1.Pod{}
	always := corev1.ContainerRestartPolicyAlways
	for i, line := range lines {
		name := fmt.Sprint("c", i)
		if rest, ok := strings.CutPrefix(line, "init "); ok {
			p.Spec.InitContainers = append(p.Spec.InitContainers, asking(name, rest))
			continue
		}
		if rest, ok := strings.CutPrefix(line, "sidecar "); ok {
			c := asking(name, rest)
			c.RestartPolicy = &always
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
			continue
		}
		p.Spec.Containers = append(p.Spec.Containers, asking(name, line))
	}
	return p
}

// TestPodCgroup holds the pod's own cgroup against what the kubelet's
// ResourceConfigForPod gives for the same pods.
func TestPodCgroup(t *testing.T) {
	const mi = 1 << 20
	for name, c := range map[string]struct {
		pod    []string
		pids   int64
		class  corev1.PodQOSClass
		want   resources
		v1, v2 string
	}{
		"best effort": {
			pod: []string{"-/- -/-"}, class: corev1.PodQOSBestEffort, want: resources{shares: 2},
			v1: "cpu.shares=2", v2: "cpu.weight=1",
		},
		"best effort, pids": {
			pod: []string{"-/- -/-"}, pids: 64, class: corev1.PodQOSBestEffort, want: resources{shares: 2, pids: 64},
			v1: "cpu.shares=2 pids.max=64", v2: "cpu.weight=1 pids.max=64",
		},
		"burstable by requests": {
			pod: []string{"100m/- 64Mi/-"}, class: corev1.PodQOSBurstable, want: resources{shares: 102},
			v1: "cpu.shares=102", v2: "cpu.weight=4",
		},
		"burstable, every limit": {
			pod: []string{"100m/200m 64Mi/128Mi"}, class: corev1.PodQOSBurstable, want: resources{shares: 102, quota: 20000, memory: 128 * mi},
			v1: "cpu.shares=102 cpu.cfs_period_us=100000 cpu.cfs_quota_us=20000 memory.limit_in_bytes=134217728",
			v2: "cpu.weight=4 cpu.max=20000 100000 memory.max=134217728",
		},
		"burstable, one without a limit": {
			pod: []string{"100m/200m 64Mi/128Mi", "100m/- 64Mi/-"}, class: corev1.PodQOSBurstable, want: resources{shares: 204},
			v1: "cpu.shares=204", v2: "cpu.weight=8",
		},
		"burstable, memory alone limited": {
			pod: []string{"100m/200m 64Mi/128Mi", "100m/- 64Mi/64Mi"}, class: corev1.PodQOSBurstable, want: resources{shares: 204, memory: 192 * mi},
			v1: "cpu.shares=204 memory.limit_in_bytes=201326592", v2: "cpu.weight=8 memory.max=201326592",
		},
		"guaranteed": {
			pod: []string{"1/1 1Gi/1Gi", "500m/500m 512Mi/512Mi"}, class: corev1.PodQOSGuaranteed, want: resources{shares: 1536, quota: 150000, memory: 1536 * mi},
			v1: "cpu.shares=1536 cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000 memory.limit_in_bytes=1610612736",
			v2: "cpu.weight=59 cpu.max=150000 100000 memory.max=1610612736",
		},
		"limits are requests where none are": {
			pod: []string{"-/1 -/1Gi"}, class: corev1.PodQOSGuaranteed, want: resources{shares: 1024, quota: 100000, memory: 1024 * mi},
			v1: "cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=100000 memory.limit_in_bytes=1073741824",
			v2: "cpu.weight=39 cpu.max=100000 100000 memory.max=1073741824",
		},
		"a request of nothing": {
			pod: []string{"0/1 1Gi/1Gi"}, class: corev1.PodQOSBurstable, want: resources{shares: 2, quota: 100000, memory: 1024 * mi},
			v1: "cpu.shares=2 cpu.cfs_period_us=100000 cpu.cfs_quota_us=100000 memory.limit_in_bytes=1073741824",
			v2: "cpu.weight=1 cpu.max=100000 100000 memory.max=1073741824",
		},
		"the largest init container counts": {
			pod: []string{"init 2/2 1Gi/1Gi", "init 1/1 3Gi/3Gi", "1/1 1Gi/1Gi"}, class: corev1.PodQOSGuaranteed, want: resources{shares: 2048, quota: 200000, memory: 3072 * mi},
			v1: "cpu.shares=2048 cpu.cfs_period_us=100000 cpu.cfs_quota_us=200000 memory.limit_in_bytes=3221225472",
			v2: "cpu.weight=79 cpu.max=200000 100000 memory.max=3221225472",
		},
		"sidecars count with what comes after them": {
			pod: []string{"init 1/1 64Mi/64Mi", "sidecar 500m/500m 64Mi/64Mi", "init 2/2 64Mi/64Mi", "1/1 64Mi/64Mi"}, class: corev1.PodQOSGuaranteed, want: resources{shares: 2560, quota: 250000, memory: 128 * mi},
			v1: "cpu.shares=2560 cpu.cfs_period_us=100000 cpu.cfs_quota_us=250000 memory.limit_in_bytes=134217728",
			v2: "cpu.weight=98 cpu.max=250000 100000 memory.max=134217728",
		},
		"an init container without limits": {
			pod: []string{"init -/- -/-", "1/1 1Gi/1Gi"}, class: corev1.PodQOSBurstable, want: resources{shares: 1024},
			v1: "cpu.shares=1024", v2: "cpu.weight=39",
		},
		"many small containers": {
			pod: []string{"1m/1m -/-", "1m/1m -/-", "1m/1m -/-"}, class: corev1.PodQOSBurstable, want: resources{shares: 3, quota: 1000},
			v1: "cpu.shares=3 cpu.cfs_period_us=100000 cpu.cfs_quota_us=1000", v2: "cpu.weight=1 cpu.max=1000 100000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := podAsking(c.pod...)
			if got := pod.QOS(p); got != c.class {
				t.Errorf("class %s, want %s", got, c.class)
			}
			got := podResources(p, c.pids)
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if got := written(got.settings1()); got != c.v1 {
				t.Errorf("v1: %s\nwant %s", got, c.v1)
			}
			if got := written(got.settings2()); got != c.v2 {
				t.Errorf("v2: %s\nwant %s", got, c.v2)
			}
		})
	}
}

func written(settings []setting) string {
	var all []string
	for _, s := range settings {
		if controller, _, _ := strings.Cut(s.file, "."); controller != s.controller {
			all = append(all, "in "+s.controller)
		}
		all = append(all, s.file+"="+s.value)
	}
	return strings.Join(all, " ")
}

// TestOOMScores are the cases of Kubernetes' own test of the kubelet's policy,
// on a machine with 8 GB, and what Pawl adds.
func TestOOMScores(t *testing.T) {
	const total = 8_000_000_000
	critical := podAsking("-/- -/-")
	critical.Spec.PriorityClassName = nodeCritical
	for name, c := range map[string]struct {
		pod   *corev1.Pod
		total int64
		want  int
	}{
		"best effort":                {podAsking("-/- -/-"), total, 1000},
		"critical":                   {critical, total, -997},
		"guaranteed":                 {podAsking("100m/100m 10G/10G"), total, -997},
		"burstable by cpu":           {podAsking("100m/- -/-"), total, 999},
		"asks for next to nothing":   {podAsking("100m/- 1/-"), total, 999},
		"asks for half":              {podAsking("-/- 4000000000/-"), total, 500},
		"asks for all but a little":  {podAsking("100m/- 7999000000/-"), total, 3},
		"asks for more than all":     {podAsking("-/- 9G/-"), total, 3},
		"a limit is a request":       {podAsking("-/- -/4000000000"), total, 500},
		"memory unknown":             {podAsking("100m/- 1Gi/-"), 0, 999},
		"sidecar asks for less":      {podAsking("sidecar -/- 1Mi/-", "-/- 4000000000/-"), total, 500},
		"sidecar asks for more":      {podAsking("sidecar -/- 6000000000/-", "-/- 4000000000/-"), total, 250},
		"of several the least":       {podAsking("sidecar -/- 1Mi/-", "-/- 4000000000/-", "-/- 2000000000/-"), total, 750},
		"init container, no sidecar": {podAsking("init -/- 800000000/-", "-/- 4000000000/-"), total, 900},
	} {
		first := &c.pod.Spec.Containers[0]
		if len(c.pod.Spec.InitContainers) > 0 {
			first = &c.pod.Spec.InitContainers[0]
		}
		if got := oomScore(c.pod, first, c.total); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestContainerResources(t *testing.T) {
	c := asking("c", "100m/250m 64Mi/128Mi")
	v1 := host{cgroup: map[string]string{"cpu": "/x", "memory": "/y"}, swap: true}.linuxResources(&c)
	if *v1.CPU.Shares != 102 || *v1.CPU.Quota != 25000 || *v1.CPU.Period != 100000 || *v1.Memory.Limit != 128<<20 || *v1.Memory.Swap != 128<<20 || v1.Unified != nil || v1.Memory.Reservation != nil {
		t.Errorf("v1: %+v %+v %v", v1.CPU, v1.Memory, v1.Unified)
	}
	bare := host{cgroup: map[string]string{"": "/x"}}
	if l := bare.linuxResources(&c); l.Unified != nil {
		t.Errorf("without a memory controller: %v", l.Unified)
	}
	bare.memory2 = true
	v2 := bare.linuxResources(&c)
	if v2.Memory.Swap != nil || v2.Unified["memory.oom.group"] != "1" || len(v2.Unified) != 1 {
		t.Errorf("v2: %+v %v", v2.Memory, v2.Unified)
	}
	free := asking("c", "-/- -/-")
	if l := (host{}).linuxResources(&free); l.Memory != nil || l.CPU.Quota != nil || *l.CPU.Shares != 2 {
		t.Errorf("no limits: %+v %+v", l.CPU, l.Memory)
	}
}
