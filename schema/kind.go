package schema

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
)

// A Kind is the lower-case plural by which a Kubernetes kind is known in store
// keys and URLs, such as "deployments".
type Kind string

// The kinds Pawl knows.
const (
	Namespaces             Kind = "namespaces"
	Pods                   Kind = "pods"
	ReplicaSets            Kind = "replicasets"
	ReplicationControllers Kind = "replicationcontrollers"
	Deployments            Kind = "deployments"
	ConfigMaps             Kind = "configmaps"
	Secrets                Kind = "secrets"
	Services               Kind = "services"
	Nodes                  Kind = "nodes"
	Events                 Kind = "events"
	PriorityClasses        Kind = "priorityclasses"
	ServiceAccounts        Kind = "serviceaccounts"
	// Revisions is a kind of Pawl's own: the commits that were looked at.
	Revisions Kind = "revisions"
)

// Group is the API group of Pawl's own kinds.
const Group = "pawl.dev"

// An Object is a Kubernetes object of a kind Pawl knows. Its TypeMeta is always
// filled in, so that its JSON says what it is.
type Object interface {
	metav1.Object
	runtime.Object
}

// KindInfo is what the whole system knows of one kind.
type KindInfo struct {
	Kind       Kind
	GVK        k8sschema.GroupVersionKind // the one version Pawl stores
	Namespaced bool
	Manifest   bool          // may stand in the repository; the others are only ever reported
	New        func() Object // an empty object of the stored version, TypeMeta filled in
}

var kinds = []KindInfo{
	info(Namespaces, "", "v1", "Namespace", false, true, func() Object { return new(corev1.Namespace) }),
	info(Nodes, "", "v1", "Node", false, false, func() Object { return new(corev1.Node) }),
	info(PriorityClasses, "scheduling.k8s.io", "v1", "PriorityClass", false, true, func() Object { return new(schedulingv1.PriorityClass) }),
	info(ConfigMaps, "", "v1", "ConfigMap", true, true, func() Object { return new(corev1.ConfigMap) }),
	info(Secrets, "", "v1", "Secret", true, true, func() Object { return new(corev1.Secret) }),
	info(ServiceAccounts, "", "v1", "ServiceAccount", true, true, func() Object { return new(corev1.ServiceAccount) }),
	info(Services, "", "v1", "Service", true, true, func() Object { return new(corev1.Service) }),
	info(Pods, "", "v1", "Pod", true, true, func() Object { return new(corev1.Pod) }),
	info(ReplicationControllers, "", "v1", "ReplicationController", true, true, func() Object { return new(corev1.ReplicationController) }),
	info(ReplicaSets, "apps", "v1", "ReplicaSet", true, true, func() Object { return new(appsv1.ReplicaSet) }),
	info(Deployments, "apps", "v1", "Deployment", true, true, func() Object { return new(appsv1.Deployment) }),
	info(Events, "", "v1", "Event", true, false, func() Object { return new(corev1.Event) }),
	info(Revisions, Group, "v1", "Revision", false, false, func() Object { return new(RevisionObject) }),
}

func info(k Kind, group, version, kind string, namespaced, manifest bool, empty func() Object) KindInfo {
	gvk := k8sschema.GroupVersionKind{Group: group, Version: version, Kind: kind}
	return KindInfo{Kind: k, GVK: gvk, Namespaced: namespaced, Manifest: manifest, New: func() Object {
		o := empty()
		o.GetObjectKind().SetGroupVersionKind(gvk)
		return o
	}}
}

// Kinds returns every kind Pawl knows, those that others refer to first.
func Kinds() []KindInfo { return append([]KindInfo(nil), kinds...) }

// LookupKind finds a kind by its plural.
func LookupKind(k Kind) (KindInfo, bool) {
	for _, i := range kinds {
		if i.Kind == k {
			return i, true
		}
	}
	return KindInfo{}, false
}

// LookupGVK finds a kind by the group, version and kind that Pawl stores.
func LookupGVK(gvk k8sschema.GroupVersionKind) (KindInfo, bool) {
	for _, i := range kinds {
		if i.GVK == gvk {
			return i, true
		}
	}
	return KindInfo{}, false
}

// KeyOf returns the key of an object whose TypeMeta is filled in. The Kind is
// empty when Pawl does not know the object's kind.
func KeyOf(o Object) ObjectKey {
	k := ObjectKey{Namespace: o.GetNamespace(), Name: o.GetName()}
	if i, ok := LookupGVK(o.GetObjectKind().GroupVersionKind()); ok {
		k.Kind = i.Kind
	}
	return k
}
