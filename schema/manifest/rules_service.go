package manifest

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

func (o *objectReader) serviceRules(x *corev1.Service) {
	s := &x.Spec
	headless := s.ClusterIP == corev1.ClusterIPNone
	external := s.Type == corev1.ServiceTypeExternalName
	if len(s.Ports) == 0 && !headless && !external {
		o.fault("spec.ports", "is missing", "must have at least one port, but for headless Services and type ExternalName")
	}
	if external {
		if s.ExternalName == "" {
			o.fault("spec.externalName", "is missing", "must be the DNS name that a Service of type ExternalName stands for")
		}
		if s.ClusterIP != "" && !headless {
			o.fault("spec.clusterIP", "must not be there with type ExternalName", "")
		}
	}
	if headless && (s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer) {
		o.fault("spec.clusterIP", "must not be None with type "+string(s.Type), "")
	}
	if s.SessionAffinityConfig != nil && s.SessionAffinity == corev1.ServiceAffinityNone {
		o.fault("spec.sessionAffinityConfig", "must not be there with sessionAffinity None", "")
	}
	o.addressRule(s.ClusterIP, "spec.clusterIP")
	for i, ip := range s.ClusterIPs {
		o.addressRule(ip, indexPath("spec.clusterIPs", i))
	}
	for i, ip := range s.ExternalIPs {
		o.addressRule(ip, indexPath("spec.externalIPs", i))
	}
	for i, r := range s.LoadBalancerSourceRanges {
		if _, err := netip.ParsePrefix(r); err != nil {
			o.fault(indexPath("spec.loadBalancerSourceRanges", i), "must be a network such as 10.0.0.0/8, is "+quote(r), "")
		}
	}
	o.servicePortRules(s)
}

func (o *objectReader) addressRule(ip, at string) {
	if ip == "" || ip == corev1.ClusterIPNone {
		return
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		o.fault(at, "must be an IP address, is "+quote(ip), "")
	}
}

func (o *objectReader) servicePortRules(s *corev1.ServiceSpec) {
	names := &twice{o: o, what: "port"}
	served, onNodes := map[numberedPort]string{}, map[numberedPort]string{}
	nodes := s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer
	for i, p := range s.Ports {
		here := indexPath("spec.ports", i)
		if p.Name == "" && len(s.Ports) > 1 {
			o.fault(here+".name", "is missing", "ports have names when there are several")
		}
		names.check(p.Name, here+".name")
		o.portTwice(served, numberedPort{p.Port, p.Protocol}, here, "port", p.Port)
		if p.NodePort == 0 {
			continue
		}
		if !nodes {
			o.fault(here+".nodePort", "must not be there with type "+string(s.Type), "write type: NodePort")
		}
		o.portTwice(onNodes, numberedPort{p.NodePort, p.Protocol}, here, "nodePort", p.NodePort)
	}
}

// A numberedPort is what may be served once.
type numberedPort struct {
	number   int32
	protocol corev1.Protocol
}

func (o *objectReader) portTwice(seen map[numberedPort]string, key numberedPort, here, field string, number int32) {
	if first, there := seen[key]; there {
		o.fault(here+"."+field, fmt.Sprintf("%s %d/%s stands twice, first at %s", field, number, key.protocol, first), "")
		return
	}
	seen[key] = here
}
