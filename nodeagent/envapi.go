package nodeagent

import (
	"net"

	corev1 "k8s.io/api/core/v1"
)

// addAPI adds what programs look for when they ask the API from within a pod. It
// is there only when there is an address which the pod can really reach.
func (e environment) addAPI(vars *variables) {
	host, port, err := net.SplitHostPort(e.api)
	if err != nil {
		return
	}
	vars.set("KUBERNETES_SERVICE_HOST", host)
	vars.set("KUBERNETES_SERVICE_PORT", port)
	vars.set("KUBERNETES_SERVICE_PORT_HTTPS", port)
}

// apiFor is where a pod reaches the API; "": nowhere.
func (c *Config) apiFor(p *corev1.Pod) string {
	if p.Spec.HostNetwork {
		return c.HostAPI
	}
	return c.PodAPI
}
