package manifest

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

// setDefaults fills in what an API server would. All defaults are here and in
// defaults_pod.go; the definitions only speak of them in their comments,
// because half of them depend on other fields.
func setDefaults(object schema.Object) {
	if info, ok := schema.LookupGVK(object.GetObjectKind().GroupVersionKind()); ok && info.Namespaced && object.GetNamespace() == "" {
		object.SetNamespace(defaultNamespace)
	}
	clearServerFields(object)
	switch o := object.(type) {
	case *corev1.Namespace:
		defaultNamespaceObject(o)
	case *corev1.Pod:
		defaultPodSpec(&o.Spec)
	case *corev1.ReplicationController:
		defaultReplicationController(o)
	case *appsv1.ReplicaSet:
		o.Spec.Replicas = orElse(o.Spec.Replicas, 1)
		defaultTemplate(&o.Spec.Template)
	case *appsv1.Deployment:
		defaultDeployment(o)
	case *corev1.Secret:
		defaultSecret(o)
	case *corev1.Service:
		defaultService(o)
	case *schedulingv1.PriorityClass:
		o.PreemptionPolicy = orElse(o.PreemptionPolicy, corev1.PreemptLowerPriority)
	}
}

// clearServerFields removes what only a server says, so that an object written
// by `get -o yaml` compares equal to what it came from.
func clearServerFields(o schema.Object) {
	o.SetUID("")
	o.SetResourceVersion("")
	o.SetGeneration(0)
	o.SetSelfLink("")
	o.SetCreationTimestamp(metav1.Time{})
	o.SetDeletionTimestamp(nil)
	o.SetDeletionGracePeriodSeconds(nil)
	o.SetManagedFields(nil)
}

func orElse[T any](p *T, value T) *T {
	if p != nil {
		return p
	}
	return &value
}

func setIfZero[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

func defaultNamespaceObject(o *corev1.Namespace) {
	const nameLabel = "kubernetes.io/metadata.name"
	labels := map[string]string{nameLabel: o.Name}
	for k, v := range o.Labels {
		if k != nameLabel {
			labels[k] = v
		}
	}
	o.Labels = labels
	if len(o.Spec.Finalizers) == 0 {
		o.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
	}
}

func defaultReplicationController(o *corev1.ReplicationController) {
	o.Spec.Replicas = orElse(o.Spec.Replicas, 1)
	if o.Spec.Template == nil {
		return
	}
	if len(o.Spec.Selector) == 0 {
		o.Spec.Selector = copyMap(o.Spec.Template.Labels)
	}
	if len(o.Labels) == 0 {
		o.Labels = copyMap(o.Spec.Template.Labels)
	}
	defaultTemplate(o.Spec.Template)
}

func copyMap(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	c := make(map[string]string, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func defaultDeployment(o *appsv1.Deployment) {
	o.Spec.Replicas = orElse(o.Spec.Replicas, 1)
	o.Spec.RevisionHistoryLimit = orElse(o.Spec.RevisionHistoryLimit, 10)
	o.Spec.ProgressDeadlineSeconds = orElse(o.Spec.ProgressDeadlineSeconds, 600)
	setIfZero(&o.Spec.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if o.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		r := orElse(o.Spec.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		r.MaxSurge = orElse(r.MaxSurge, intstr.FromString("25%"))
		r.MaxUnavailable = orElse(r.MaxUnavailable, intstr.FromString("25%"))
		o.Spec.Strategy.RollingUpdate = r
	}
	defaultTemplate(&o.Spec.Template)
}

func defaultTemplate(t *corev1.PodTemplateSpec) {
	t.CreationTimestamp = metav1.Time{}
	defaultPodSpec(&t.Spec)
}

// defaultSecret stores stringData where it belongs: it is for writing only.
func defaultSecret(o *corev1.Secret) {
	setIfZero(&o.Type, corev1.SecretTypeOpaque)
	if len(o.StringData) > 0 && o.Data == nil {
		o.Data = map[string][]byte{}
	}
	for k, v := range o.StringData {
		o.Data[k] = []byte(v)
	}
	o.StringData = nil
}

func defaultService(o *corev1.Service) {
	s := &o.Spec
	setIfZero(&s.Type, corev1.ServiceTypeClusterIP)
	setIfZero(&s.SessionAffinity, corev1.ServiceAffinityNone)
	if s.SessionAffinity == corev1.ServiceAffinityClientIP && s.SessionAffinityConfig == nil {
		s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(corev1.DefaultClientIPServiceAffinitySeconds)}}
	}
	if s.Type != corev1.ServiceTypeExternalName {
		s.InternalTrafficPolicy = orElse(s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	if s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer {
		setIfZero(&s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if s.Type == corev1.ServiceTypeLoadBalancer {
		s.AllocateLoadBalancerNodePorts = orElse(s.AllocateLoadBalancerNodePorts, true)
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		setIfZero(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == (intstr.IntOrString{}) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
}

// pullPolicy is Always for a tag that moves, else IfNotPresent.
func pullPolicy(image string) corev1.PullPolicy {
	if strings.Contains(image, "@") {
		return corev1.PullIfNotPresent
	}
	tag := ""
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		tag = image[i+1:]
	}
	if tag == "" || tag == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}
