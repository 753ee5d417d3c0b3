package containerd

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

// host is what this machine and this process allow.
type host struct {
	cgroup      map[string]string // mount point of each v1 controller, and of the hybrid layout's unified; "" is v2's, when v2 holds the controllers
	lowestOOM   int               // the lowest oom_score_adj this process may give
	bounding    uint64            // the capabilities that can be given at all
	maskedPaths []string
	swap        bool   // whether swap can be limited
	memory2     bool   // v2 has a memory controller; some machines start without
	profiles    string // directory of the node's own seccomp profiles
	apparmor    appArmor
}

// unprotected: what a process lacks is said once.
var unprotected sync.Once

// lookAtHost reads it once; none of it changes while a process runs.
func lookAtHost(log *slog.Logger) (host, error) {
	h := host{maskedPaths: maskedPaths(), apparmor: findAppArmor()}
	var err error
	if h.cgroup, err = cgroupMounts(); err != nil {
		return h, err
	}
	h.swap, h.memory2 = limitsSwap(h.cgroup), hasController2(h.cgroup[""], "memory")
	if h.bounding, err = boundingSet(); err != nil {
		return h, err
	}
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return h, err
	}
	h.lowestOOM = -1000
	if h.bounding&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		if h.lowestOOM, err = strconv.Atoi(strings.TrimSpace(string(own))); err != nil {
			return h, fmt.Errorf("oom_score_adj of this process: %w", err)
		}
		if h.lowestOOM > oomGuaranteed {
			unprotected.Do(func() {
				log.Warn("without CAP_SYS_RESOURCE no process can be protected from the kernel's out-of-memory killer; guaranteed pods are killed like others", "lowest oom_score_adj", h.lowestOOM)
			})
		}
	}
	return h, nil
}

// v2 says whether the unified hierarchy holds the controllers.
func (h host) v2() bool { return h.cgroup[""] != "" }

// controllers of cgroup v1 that runc puts containers into.
var controllers = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc", "systemd"}

// unified names the v2 hierarchy that has no controllers, beside those of v1.
const unified = "unified"

// cgroupMounts finds where the hierarchies are mounted. With a hybrid layout the
// v1 controllers count, as runc uses those.
func cgroupMounts() (map[string]string, error) {
	const root = "/sys/fs/cgroup"
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return nil, fmt.Errorf("%s: %w: containers need cgroups: %w", root, err, schema.ErrRefused)
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return map[string]string{"": root}, nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return cgroupMountsIn(f)
}

// cgroupMountsIn reads them from the kernel's table of mounts.
func cgroupMountsIn(table io.Reader) (map[string]string, error) {
	found := map[string]string{}
	for s := bufio.NewScanner(table); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 || !strings.HasPrefix(kind[0], "cgroup") {
			continue
		}
		if kind[0] == "cgroup2" {
			// Without controllers, but runc puts containers there too, and removes
			// only the last part of their path.
			found[unified] = fields[4]
			continue
		}
		for _, option := range strings.Split(kind[2], ",") {
			option = strings.TrimPrefix(option, "name=")
			if slices.Contains(controllers, option) && found[option] == "" {
				found[option] = fields[4]
			}
		}
	}
	if found["memory"] == "" || found["cpu"] == "" {
		return nil, fmt.Errorf("no cgroup controllers are mounted: %w", schema.ErrRefused)
	}
	return found, nil
}

// limitsSwap says whether the kernel counts swap. The root of v2 has no limits,
// but what is below it does.
func limitsSwap(cgroup map[string]string) bool {
	if root := cgroup[""]; root != "" {
		found, err := filepath.Glob(filepath.Join(root, "*", "memory.swap.max"))
		return err == nil && len(found) > 0
	}
	_, err := os.Stat(filepath.Join(cgroup["memory"], "memory.memsw.limit_in_bytes"))
	return err == nil
}

// hasController2 says whether the v2 hierarchy at root, "" for none, has a controller.
func hasController2(root, name string) bool {
	if root == "" {
		return false
	}
	text, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(text)), name)
}

// boundingSet is this process's capability bounding set.
func boundingSet() (uint64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no CapBnd line")
}

// maskedPaths hides what containers must not see of the host: Kubernetes' list.
func maskedPaths() []string {
	paths := []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
	throttles, err := filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle")
	if err != nil {
		return paths
	}
	return append(paths, throttles...)
}

// readonlyPaths may be seen and not changed.
var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// alive says whether the process is there and is the container's: a pid can be
// given to another process, but not into the container's cgroup.
func alive(pid int, id string) bool {
	if pid <= 0 {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(text), id)
}
