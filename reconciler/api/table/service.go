package table

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

var services = of(serviceRow,
	nameColumn,
	text("Type", corev1.ServiceSpec{}.SwaggerDoc()["type"]),
	text("Cluster-IP", corev1.ServiceSpec{}.SwaggerDoc()["clusterIP"]),
	text("External-IP", corev1.ServiceSpec{}.SwaggerDoc()["externalIPs"]),
	text("Port(s)", corev1.ServiceSpec{}.SwaggerDoc()["ports"]),
	ageColumn,
	inWide(text("Selector", corev1.ServiceSpec{}.SwaggerDoc()["selector"])),
)

func serviceRow(s *corev1.Service, now time.Time) []any {
	return []any{
		s.Name, string(s.Spec.Type), clusterIP(s), externalIP(s), or(servicePorts(s), none), age(s.CreationTimestamp, now),
		labels.FormatLabels(s.Spec.Selector),
	}
}

// clusterIP is the first address: "None" for a service that asks for none,
// <none> for one that has none (yet).
func clusterIP(s *corev1.Service) string {
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs[0]
	}
	return or(s.Spec.ClusterIP, none)
}

// externalIP is where a service is reached from outside.
func externalIP(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return or(strings.Join(s.Spec.ExternalIPs, ","), none)
	case corev1.ServiceTypeLoadBalancer:
		return or(strings.Join(append(ingress(s), s.Spec.ExternalIPs...), ","), "<pending>")
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	default:
		return unknown
	}
}

// ingress returns what the load balancer answers at, sorted, each once.
func ingress(s *corev1.Service) []string {
	var points []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		if p := or(i.IP, i.Hostname); p != "" {
			points = append(points, p)
		}
	}
	slices.Sort(points)
	return slices.Compact(points)
}

func servicePorts(s *corev1.Service) string {
	ports := make([]string, len(s.Spec.Ports))
	for i, p := range s.Spec.Ports {
		if p.NodePort > 0 {
			ports[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		} else {
			ports[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		}
	}
	return strings.Join(ports, ",")
}
