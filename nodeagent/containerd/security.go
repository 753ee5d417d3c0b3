package containerd

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// defaultCapabilities are containerd's, which are Kubernetes'.
var defaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// security is what a container's and its pod's securityContext say together.
type security struct {
	privileged      bool
	readOnlyRoot    bool
	noNewPrivileges bool
	unmaskedProc    bool
	add, drop       []corev1.Capability
	seccomp         *corev1.SeccompProfile  // nil: the default
	apparmor        *corev1.AppArmorProfile // nil: the default
}

func securityOf(p *corev1.Pod, c *corev1.Container) security {
	var s security
	if sc := p.Spec.SecurityContext; sc != nil {
		s.seccomp, s.apparmor = sc.SeccompProfile, sc.AppArmorProfile
	}
	sc := c.SecurityContext
	if sc == nil {
		return s
	}
	s.privileged = sc.Privileged != nil && *sc.Privileged
	s.readOnlyRoot = sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem
	s.noNewPrivileges = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
	s.unmaskedProc = sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount
	if sc.Capabilities != nil {
		s.add, s.drop = sc.Capabilities.Add, sc.Capabilities.Drop
	}
	if sc.SeccompProfile != nil {
		s.seccomp = sc.SeccompProfile
	}
	if sc.AppArmorProfile != nil {
		s.apparmor = sc.AppArmorProfile
	}
	return s
}

func checkNonRoot(p *corev1.Pod, c *corev1.Container, uid uint32) error {
	var nonRoot bool
	if sc := p.Spec.SecurityContext; sc != nil && sc.RunAsNonRoot != nil {
		nonRoot = *sc.RunAsNonRoot
	}
	if sc := c.SecurityContext; sc != nil && sc.RunAsNonRoot != nil {
		nonRoot = *sc.RunAsNonRoot
	}
	if nonRoot && uid == 0 {
		return fmt.Errorf("container %s has runAsNonRoot and its image runs as root: %w", c.Name, schema.ErrRefused)
	}
	return nil
}

// capabilities are the default ones with add, without drop; all for a privileged
// container. What is both added and dropped is dropped, as containerd has it for
// Kubernetes; ALL comes before single ones. What this machine cannot give nobody gets.
func (h host) capabilities(s security) (*specs.LinuxCapabilities, error) {
	set := map[string]bool{}
	put := func(list []string, on bool) {
		for _, c := range list {
			set[c] = on
		}
	}
	everything := h.possible()
	put(defaultCapabilities, true)
	if s.privileged || slices.ContainsFunc(s.add, isAll) {
		put(everything, true)
	}
	if slices.ContainsFunc(s.drop, isAll) && !s.privileged {
		clear(set)
	}
	for _, change := range []struct {
		list []corev1.Capability
		on   bool
	}{{s.add, true}, {s.drop, false}} {
		for _, c := range change.list {
			if isAll(c) || s.privileged {
				continue
			}
			name := capabilityName(c)
			if !slices.Contains(cap.Known(), name) {
				return nil, fmt.Errorf("capability %q is not known: %w", c, schema.ErrRefused)
			}
			set[name] = change.on
		}
	}
	list := []string{}
	for _, c := range everything {
		if set[c] {
			list = append(list, c)
		}
	}
	return &specs.LinuxCapabilities{Bounding: list, Effective: list, Permitted: list}, nil
}

func isAll(c corev1.Capability) bool { return strings.EqualFold(string(c), "ALL") }

func capabilityName(c corev1.Capability) string {
	name := strings.ToUpper(string(c))
	if !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	return name
}

// possible lists the capabilities this process may hand on, by name.
func (h host) possible() []string {
	known := cap.Known()
	list := make([]string, 0, bits.OnesCount64(h.bounding))
	for i, name := range known {
		if h.bounding&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// apply sets what depends on the whole spec: seccomp filters by capabilities.
func (s security) apply(spec *specs.Spec, h host, bits32 bool) error {
	if s.privileged {
		devices, err := oci.HostDevices()
		if err != nil {
			return fmt.Errorf("list the host's devices: %w", err)
		}
		spec.Linux.Devices = devices
		spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil
	}
	spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	if !s.unmaskedProc {
		spec.Linux.MaskedPaths = h.maskedPaths
		spec.Linux.ReadonlyPaths = readonlyPaths
	}
	var err error
	if spec.Linux.Seccomp, err = s.filter(spec, h.profiles, bits32); err != nil {
		return err
	}
	spec.Process.ApparmorProfile, err = s.confinement(h.apparmor)
	return err
}
