package manifest

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func defaultPodSpec(s *corev1.PodSpec) {
	setIfZero(&s.RestartPolicy, corev1.RestartPolicyAlways)
	setIfZero(&s.DNSPolicy, corev1.DNSClusterFirst)
	setIfZero(&s.SchedulerName, corev1.DefaultSchedulerName)
	s.TerminationGracePeriodSeconds = orElse(s.TerminationGracePeriodSeconds, int64(corev1.DefaultTerminationGracePeriodSeconds))
	s.SecurityContext = orElse(s.SecurityContext, corev1.PodSecurityContext{})
	s.EnableServiceLinks = orElse(s.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	// The two names of one field; the old one is what many manifests write.
	setIfZero(&s.ServiceAccountName, s.DeprecatedServiceAccount)
	s.DeprecatedServiceAccount = s.ServiceAccountName
	for i := range s.Volumes {
		defaultVolume(&s.Volumes[i].VolumeSource)
	}
	for i := range s.InitContainers {
		defaultContainer(&s.InitContainers[i], s.HostNetwork)
	}
	for i := range s.Containers {
		defaultContainer(&s.Containers[i], s.HostNetwork)
	}
}

func defaultContainer(c *corev1.Container, hostNetwork bool) {
	setIfZero(&c.ImagePullPolicy, pullPolicy(c.Image))
	setIfZero(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	setIfZero(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		setIfZero(&c.Ports[i].Protocol, corev1.ProtocolTCP)
		if hostNetwork {
			setIfZero(&c.Ports[i].HostPort, c.Ports[i].ContainerPort)
		}
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil && from.FieldRef != nil {
			setIfZero(&from.FieldRef.APIVersion, "v1")
		}
	}
	for name, limit := range c.Resources.Limits {
		if _, asked := c.Resources.Requests[name]; !asked {
			if c.Resources.Requests == nil {
				c.Resources.Requests = corev1.ResourceList{}
			}
			c.Resources.Requests[name] = limit.DeepCopy()
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p != nil {
			defaultProbe(p)
		}
	}
	if l := c.Lifecycle; l != nil {
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil && h.HTTPGet != nil {
				defaultHTTPGet(h.HTTPGet)
			}
		}
	}
}

func defaultProbe(p *corev1.Probe) {
	setIfZero(&p.TimeoutSeconds, 1)
	setIfZero(&p.PeriodSeconds, 10)
	setIfZero(&p.SuccessThreshold, 1)
	setIfZero(&p.FailureThreshold, 3)
	if p.HTTPGet != nil {
		defaultHTTPGet(p.HTTPGet)
	}
	if p.GRPC != nil {
		p.GRPC.Service = orElse(p.GRPC.Service, "")
	}
}

func defaultHTTPGet(h *corev1.HTTPGetAction) {
	setIfZero(&h.Path, "/")
	setIfZero(&h.Scheme, corev1.URISchemeHTTP)
}

func defaultVolume(v *corev1.VolumeSource) {
	if *v == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	switch {
	case v.Secret != nil:
		v.Secret.DefaultMode = orElse(v.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	case v.ConfigMap != nil:
		v.ConfigMap.DefaultMode = orElse(v.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	case v.DownwardAPI != nil:
		v.DownwardAPI.DefaultMode = orElse(v.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultFieldRefs(v.DownwardAPI.Items)
	case v.Projected != nil:
		v.Projected.DefaultMode = orElse(v.Projected.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
		for i := range v.Projected.Sources {
			source := &v.Projected.Sources[i]
			if source.DownwardAPI != nil {
				defaultFieldRefs(source.DownwardAPI.Items)
			}
			if source.ServiceAccountToken != nil {
				source.ServiceAccountToken.ExpirationSeconds = orElse(source.ServiceAccountToken.ExpirationSeconds, ptr.Deref(source.ServiceAccountToken.ExpirationSeconds, 3600))
			}
		}
	case v.HostPath != nil:
		v.HostPath.Type = orElse(v.HostPath.Type, corev1.HostPathUnset)
	}
}

func defaultFieldRefs(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		if items[i].FieldRef != nil {
			setIfZero(&items[i].FieldRef.APIVersion, "v1")
		}
	}
}
