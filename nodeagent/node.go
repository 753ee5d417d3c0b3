package nodeagent

import (
	"bufio"
	"context"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const versionLimit = 5 * time.Second // for the runtime to answer

// heartbeatRetry is the first pause after a report of the node that failed: at the
// start it is only that the connection is not there yet.
const heartbeatRetry = 20 * time.Millisecond

// heartbeat reports the node until ctx is done. It looks at the machine anew
// every time, as memory and disks come and go on some.
func (a *agent) heartbeat(ctx context.Context) error {
	last := map[corev1.NodeConditionType]corev1.NodeCondition{}
	retry := heartbeatRetry
	for ctx.Err() == nil {
		a.reports.allTold(ctx, a.cfg.Heartbeat)
		n := a.node(ctx, last)
		for _, c := range n.Status.Conditions {
			last[c.Type] = c
		}
		if err := a.beat(ctx, n); err == nil {
			retry = heartbeatRetry
			pause(ctx, a.cfg.Heartbeat*9/10)
			continue
		} else if retry > time.Second && ctx.Err() == nil {
			a.log.Warn("cannot report the node; trying on", "retry", retry, "err", err)
		}
		pause(ctx, retry)
		retry = min(2*retry, a.cfg.Heartbeat/2)
	}
	return ctx.Err()
}

func (a *agent) beat(ctx context.Context, n *corev1.Node) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Heartbeat)
	defer cancel()
	return a.cfg.Link.ReportNode(ctx, n)
}

// node describes this machine.
func (a *agent) node(ctx context.Context, last map[corev1.NodeConditionType]corev1.NodeCondition) *corev1.Node {
	name := string(a.cfg.Node)
	n := &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname:   name,
			corev1.LabelOSStable:   runtime.GOOS,
			corev1.LabelArchStable: runtime.GOARCH,
		}},
	}
	for k, v := range a.cfg.Labels {
		n.Labels[k] = v
	}
	n.Spec.Taints = a.cfg.Taints
	version, err := a.runtimeVersion(ctx)
	n.Status = corev1.NodeStatus{
		Capacity:    a.total(),
		Allocatable: a.capacity(),
		NodeInfo:    nodeInfo(version, a.cfg.Version),
		Addresses:   []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}},
		Conditions:  a.nodeConditions(err, last),
	}
	if a.cfg.NodeIP != "" {
		n.Status.Addresses = append([]corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: a.cfg.NodeIP}}, n.Status.Addresses...)
	}
	return n
}

func (a *agent) runtimeVersion(ctx context.Context) (string, error) {
	v, ok := a.cfg.Runtime.(Versioner)
	if !ok {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	return v.Version(ctx)
}

// nodeConditions says how the node is; runtimeErr is why the runtime does not
// answer. Pressures that are not measured are not claimed either.
func (a *agent) nodeConditions(runtimeErr error, last map[corev1.NodeConditionType]corev1.NodeCondition) []corev1.NodeCondition {
	now := metav1.Now()
	c := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady",
		Message: "the node agent is running and its runtime answers", LastHeartbeatTime: now, LastTransitionTime: now,
	}
	if runtimeErr != nil {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "RuntimeNotReady", runtimeErr.Error()
	}
	all := []corev1.NodeCondition{c}
	if disk, ok := a.diskPressure(now); ok {
		all = append(all, disk)
	}
	for i := range all {
		if old, ok := last[all[i].Type]; ok && old.Status == all[i].Status {
			all[i].LastTransitionTime = old.LastTransitionTime
		}
	}
	return all
}

// total is what the machine has; capacity what of it may be given to pods.
func (a *agent) total() corev1.ResourceList {
	l := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourcePods:   *resource.NewQuantity(int64(a.cfg.MaxPods), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memory(), resource.BinarySI),
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(a.cfg.DataDir, &fs); err == nil {
		l[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(int64(fs.Blocks)*fs.Bsize, resource.BinarySI)
	}
	return l
}

func (a *agent) capacity() corev1.ResourceList {
	l := a.total()
	for name, r := range a.cfg.Reserved {
		if q, ok := l[name]; ok {
			q.Sub(r)
			if q.Sign() < 0 {
				q = resource.Quantity{}
			}
			l[name] = q
		}
	}
	return l
}

// memory is the machine's memory in bytes; 0 when it cannot be told.
func memory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if kb, ok := strings.CutPrefix(s.Text(), "MemTotal:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(kb), " kB"), 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// nodeInfo says what the machine is. agent is Pawl's version, which stands where
// Kubernetes has the kubelet's.
func nodeInfo(runtimeVersion, agent string) corev1.NodeSystemInfo {
	i := corev1.NodeSystemInfo{
		KubeletVersion:          agent,
		OperatingSystem:         runtime.GOOS,
		Architecture:            runtime.GOARCH,
		OSImage:                 osImage(),
		ContainerRuntimeVersion: runtimeVersion,
		MachineID:               firstLine("/etc/machine-id"),
		BootID:                  firstLine("/proc/sys/kernel/random/boot_id"),
		KernelVersion:           firstLine("/proc/sys/kernel/osrelease"),
	}
	i.SystemUUID = i.MachineID
	return i
}

func firstLine(file string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	return strings.TrimSpace(line)
}

// osImage is the distribution's name for itself.
func osImage() string {
	raw, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return runtime.GOOS
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return runtime.GOOS
}

// hostIP is the address by which the machine reaches others; without a route to
// them the first that they could reach, "" when there is none.
func hostIP() string {
	// Nothing is sent: that is an address of documentation, and UDP.
	if c, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer c.Close()
		if at, ok := c.LocalAddr().(*net.UDPAddr); ok && at.IP.IsGlobalUnicast() {
			return at.IP.String()
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, l := range links {
		if l.Flags&net.FlagUp == 0 || l.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
				return ip.IP.String()
			}
		}
	}
	return ""
}
