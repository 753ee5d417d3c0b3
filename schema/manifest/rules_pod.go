package manifest

import (
	"fmt"
	"net/netip"
	"path"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// podRules checks a pod's spec that stands at a path.
func (o *objectReader) podRules(s *corev1.PodSpec, at string) {
	o.schedulingRules(s, at)
	volumes := o.volumeRules(s, at)
	names := &twice{o: o, what: "container"}
	for i := range s.InitContainers {
		here := indexPath(at+".initContainers", i)
		names.check(s.InitContainers[i].Name, here+".name")
		o.initRules(&s.InitContainers[i], here)
		o.containerRules(s, &s.InitContainers[i], here, volumes)
	}
	for i := range s.Containers {
		here := indexPath(at+".containers", i)
		names.check(s.Containers[i].Name, here+".name")
		if s.Containers[i].RestartPolicy != nil {
			o.fault(here+".restartPolicy", "is not supported by Pawl", "the pod's restartPolicy holds for all its containers")
		}
		o.containerRules(s, &s.Containers[i], here, volumes)
	}
	if s.SecurityContext != nil {
		o.seccompRules(s.SecurityContext.SeccompProfile, at+".securityContext.seccompProfile")
		o.appArmorRules(s.SecurityContext.AppArmorProfile, at+".securityContext.appArmorProfile")
		o.sysctlRules(s, at+".securityContext.sysctls")
	}
	o.usersRules(s, at)
	if s.HostPID && s.ShareProcessNamespace != nil && *s.ShareProcessNamespace {
		o.fault(at+".shareProcessNamespace", "ShareProcessNamespace and HostPID cannot both be enabled", "keep one of them")
	}
	if s.DNSPolicy == corev1.DNSNone && (s.DNSConfig == nil || len(s.DNSConfig.Nameservers) == 0) {
		o.fault(at+".dnsConfig", "has no nameservers", "with dnsPolicy None there must be at least one")
	}
}

// initRules checks what differs for init containers: they run to their end,
// but for sidecars.
func (o *objectReader) initRules(c *corev1.Container, at string) {
	if c.RestartPolicy != nil {
		if *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			o.fault(at+".restartPolicy", "is not supported by Pawl", "must be Always, which makes it a sidecar")
		}
		return
	}
	for _, p := range probesOf(c) {
		if p.probe != nil {
			o.fault(at+"."+p.name, "must not be there: an init container runs to its end", "restartPolicy: Always makes it a sidecar")
		}
	}
	if c.Lifecycle != nil {
		o.fault(at+".lifecycle", "must not be there: an init container runs to its end", "restartPolicy: Always makes it a sidecar")
	}
}

// volumeRules returns the names of the pod's volumes.
func (o *objectReader) volumeRules(s *corev1.PodSpec, at string) map[string]bool {
	names := &twice{o: o, what: "volume"}
	known := make(map[string]bool, len(s.Volumes))
	for i := range s.Volumes {
		v := &s.Volumes[i]
		here := indexPath(at+".volumes", i)
		names.check(v.Name, here+".name")
		known[v.Name] = true
		if v.DownwardAPI != nil {
			o.downwardRules(s, v.DownwardAPI.Items, here+".downwardAPI.items")
		}
		if v.Projected != nil {
			for j := range v.Projected.Sources {
				if d := v.Projected.Sources[j].DownwardAPI; d != nil {
					o.downwardRules(s, d.Items, indexPath(here+".projected.sources", j)+".downwardAPI.items")
				}
			}
		}
	}
	return known
}

func (o *objectReader) downwardRules(s *corev1.PodSpec, items []corev1.DownwardAPIVolumeFile, at string) {
	for i := range items {
		if r := items[i].ResourceFieldRef; r != nil {
			o.resourceRefRules(s, r, indexPath(at, i)+".resourceFieldRef", true)
		}
	}
}

func (o *objectReader) resourceRefRules(s *corev1.PodSpec, r *corev1.ResourceFieldSelector, at string, needsName bool) {
	if r.ContainerName == "" {
		if needsName {
			o.fault(at+".containerName", "is missing", "in a volume the container must be named")
		}
		return
	}
	for _, list := range [][]corev1.Container{s.Containers, s.InitContainers} {
		for i := range list {
			if list[i].Name == r.ContainerName {
				return
			}
		}
	}
	o.warn(o.root.find(at+".containerName"), at+".containerName", "there is no container "+quote(r.ContainerName)+" in this pod", "")
}

func (o *objectReader) containerRules(s *corev1.PodSpec, c *corev1.Container, at string, volumes map[string]bool) {
	if _, err := reference.ParseNormalizedNamed(c.Image); err != nil {
		o.warn(o.root.find(at+".image"), at+".image", "cannot be pulled: "+err.Error(), "")
	}
	o.portRules(s, c, at+".ports")
	o.envRules(s, c, at)
	o.mountRules(c, at+".volumeMounts", volumes)
	o.resourceRules(c, at+".resources")
	o.hookRules(s, c, at+".lifecycle")
	for _, p := range probesOf(c) {
		if p.probe != nil {
			o.probeRules(c, p.probe, p.name, at+"."+p.name)
		}
	}
	if sc := c.SecurityContext; sc != nil {
		if sc.Privileged != nil && *sc.Privileged && sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
			o.fault(at+".securityContext.allowPrivilegeEscalation", "must not be false when privileged is true", "")
		}
		o.seccompRules(sc.SeccompProfile, at+".securityContext.seccompProfile")
		o.appArmorRules(sc.AppArmorProfile, at+".securityContext.appArmorProfile")
	}
}

// localRules hold for seccomp and AppArmor: a profile of the node's is named
// with type Localhost, and with no other.
func (o *objectReader) localRules(kind string, profile *string, at string) {
	switch local := kind == "Localhost"; {
	case local && profile == nil:
		o.fault(at+".localhostProfile", "is missing", "type Localhost names a profile of the node")
	case !local && profile != nil:
		o.fault(at+".localhostProfile", "must not be there with type "+kind, "use type Localhost")
	}
}

func (o *objectReader) seccompRules(p *corev1.SeccompProfile, at string) {
	if p != nil {
		o.localRules(string(p.Type), p.LocalhostProfile, at)
	}
}

func (o *objectReader) appArmorRules(p *corev1.AppArmorProfile, at string) {
	if p != nil {
		o.localRules(string(p.Type), p.LocalhostProfile, at)
	}
}

// sysctlRules refuse to set what the pod shares with its node.
func (o *objectReader) sysctlRules(s *corev1.PodSpec, at string) {
	names := &twice{o: o, what: "sysctl"}
	for i, c := range s.SecurityContext.Sysctls {
		here := indexPath(at, i) + ".name"
		names.check(c.Name, here)
		switch {
		case s.HostNetwork && strings.HasPrefix(c.Name, "net."):
			o.fault(here, "must not be set with hostNetwork", "it would be the node's")
		case s.HostIPC && strings.HasPrefix(c.Name, "kernel.shm"):
			o.fault(here, "must not be set with hostIPC", "it would be the node's")
		}
	}
}

func (o *objectReader) portRules(s *corev1.PodSpec, c *corev1.Container, at string) {
	names := &twice{o: o, what: "port"}
	seen := map[numberedPort]string{}
	for i, p := range c.Ports {
		here := indexPath(at, i)
		names.check(p.Name, here+".name")
		if p.HostPort != 0 && s.HostNetwork && p.HostPort != p.ContainerPort {
			o.fault(here+".hostPort", "must be the containerPort with hostNetwork", "")
		}
		if ip, err := netip.ParseAddr(p.HostIP); err == nil && !ip.Is4() {
			o.fault(here+".hostIP", "is not supported by Pawl", "pods have IPv4 addresses alone")
		}
		key := numberedPort{p.ContainerPort, p.Protocol}
		if first, there := seen[key]; there {
			o.warn(o.root.find(here+".containerPort"), here, fmt.Sprintf("port %d/%s stands twice, first at %s", p.ContainerPort, p.Protocol, first), "")
			continue
		}
		seen[key] = here
	}
}

func (o *objectReader) envRules(s *corev1.PodSpec, c *corev1.Container, at string) {
	seen := map[string]string{}
	for i := range c.Env {
		e := &c.Env[i]
		here := indexPath(at+".env", i)
		if first, there := seen[e.Name]; there {
			o.warn(o.root.find(here+".name"), here+".name", fmt.Sprintf("variable %s stands twice, first at %s; the last one wins", quote(e.Name), first), "")
		}
		seen[e.Name] = here
		if e.ValueFrom == nil {
			continue
		}
		if e.Value != "" {
			o.fault(here+".valueFrom", "must not be there beside value", "keep one of them")
		}
		if r := e.ValueFrom.ResourceFieldRef; r != nil {
			o.resourceRefRules(s, r, here+".valueFrom.resourceFieldRef", false)
		}
	}
}

func (o *objectReader) mountRules(c *corev1.Container, at string, volumes map[string]bool) {
	paths := map[string]string{}
	for i, m := range c.VolumeMounts {
		here := indexPath(at, i)
		if !volumes[m.Name] {
			o.fault(here+".name", "there is no volume "+quote(m.Name)+" in this pod", remedyForVolume(m.Name, volumes))
		}
		if strings.Contains(m.MountPath, ":") {
			o.warn(o.root.find(here+".mountPath"), here+".mountPath", "is no path of Linux", "")
		}
		clean := path.Clean("/" + m.MountPath)
		if first, there := paths[clean]; there {
			o.fault(here+".mountPath", fmt.Sprintf("path %s is mounted twice, first at %s", quote(m.MountPath), first), "")
		}
		paths[clean] = here
		if m.SubPath != "" && m.SubPathExpr != "" {
			o.fault(here+".subPathExpr", "must not be there beside subPath", "keep one of them")
		}
		if m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged(c) {
			o.fault(here+".mountPropagation", "Bidirectional is for privileged containers", "set securityContext.privileged, or use HostToContainer")
		}
	}
}

func privileged(c *corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
}

func remedyForVolume(name string, volumes map[string]bool) string {
	if guess := nearest(name, sortedKeys(volumes)); guess != "" {
		return "did you mean " + guess + "?"
	}
	return "add it to the pod's volumes"
}

func (o *objectReader) resourceRules(c *corev1.Container, at string) {
	for name, limit := range c.Resources.Limits {
		request, there := c.Resources.Requests[name]
		if there && request.Cmp(limit) > 0 {
			o.fault(fieldPath(at+".requests", string(name)), fmt.Sprintf("must not be more than the limit: %s > %s", request.String(), limit.String()), "")
		}
	}
}

// A namedProbe is one of a container's probes with its field's name.
type namedProbe struct {
	name  string
	probe *corev1.Probe
}

func probesOf(c *corev1.Container) [3]namedProbe {
	return [3]namedProbe{{"livenessProbe", c.LivenessProbe}, {"readinessProbe", c.ReadinessProbe}, {"startupProbe", c.StartupProbe}}
}

func (o *objectReader) probeRules(c *corev1.Container, p *corev1.Probe, name, at string) {
	readiness := name == "readinessProbe"
	if !readiness && p.SuccessThreshold != 1 {
		o.fault(at+".successThreshold", "must be 1 but for readiness", "")
	}
	if readiness && p.TerminationGracePeriodSeconds != nil {
		o.fault(at+".terminationGracePeriodSeconds", "must not be there: a readiness probe kills nothing", "")
	}
	switch {
	case p.HTTPGet != nil:
		o.namedPortRules(c, p.HTTPGet.Port, at+".httpGet.port", "the probe will fail")
	case p.TCPSocket != nil:
		o.namedPortRules(c, p.TCPSocket.Port, at+".tcpSocket.port", "the probe will fail")
	case p.Exec != nil && len(p.Exec.Command) == 0:
		o.fault(at+".exec.command", "is empty", "")
	}
}

// namedPortRules warns of a port name that the container does not have.
func (o *objectReader) namedPortRules(c *corev1.Container, port intstr.IntOrString, at, so string) {
	if port.Type != intstr.String {
		return
	}
	for i := range c.Ports {
		if c.Ports[i].Name == port.StrVal {
			return
		}
	}
	o.warn(o.root.find(at), at, "the container has no port named "+quote(port.StrVal)+", "+so, "")
}
