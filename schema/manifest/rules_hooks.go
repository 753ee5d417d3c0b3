package manifest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// hookRules checks a container's hooks.
func (o *objectReader) hookRules(s *corev1.PodSpec, c *corev1.Container, at string) {
	if c.Lifecycle == nil {
		return
	}
	for _, h := range []struct {
		name string
		hook *corev1.LifecycleHandler
	}{{"postStart", c.Lifecycle.PostStart}, {"preStop", c.Lifecycle.PreStop}} {
		if h.hook != nil {
			o.hookRule(s, c, h.hook, at+"."+h.name)
		}
	}
}

func (o *objectReader) hookRule(s *corev1.PodSpec, c *corev1.Container, h *corev1.LifecycleHandler, at string) {
	switch {
	case h.Exec != nil && len(h.Exec.Command) == 0:
		o.fault(at+".exec.command", "is empty", "")
	case h.HTTPGet != nil:
		o.namedPortRules(c, h.HTTPGet.Port, at+".httpGet.port", "the hook will fail")
	case h.Sleep != nil:
		if grace := ptr.Deref(s.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds); h.Sleep.Seconds > grace {
			o.fault(at+".sleep.seconds", fmt.Sprintf("must not be more than terminationGracePeriodSeconds: %d > %d", h.Sleep.Seconds, grace), "")
		}
	case h.TCPSocket != nil:
		o.warn(o.root.find(at+".tcpSocket"), at+".tcpSocket", "is no hook that works, in Kubernetes neither: it always fails", "use exec or httpGet")
	}
}
