package feed

import (
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// composeNamespace makes a namespace: the one of the manifest, or one that is
// there because objects stand in it, the oldest of which was created at oldest,
// or that is the default one, as old as the store. It returns nil when there is
// none of these.
//
// A namespace that no manifest names has no key in the store. The time that is
// its version is that of its oldest object's creation.
func composeNamespace(name string, desired *part[schema.Object], oldest time.Time, populated bool) (schema.Object, time.Time) {
	n, stored := new(corev1.Namespace), oldest
	if desired != nil {
		m, ok := desired.value.(*corev1.Namespace)
		if !ok {
			return nil, time.Time{}
		}
		*n, stored = *m, desired.stored
		n.ManagedFields = nil
	} else {
		if !populated && name != metav1.NamespaceDefault {
			return nil, time.Time{}
		}
		n.Name = name
		n.UID = schema.UIDOf(schema.ObjectKey{Kind: schema.Namespaces, Name: name})
		if !oldest.IsZero() {
			n.CreationTimestamp = metav1.NewTime(oldest.Truncate(time.Second))
		}
	}
	n.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}
	n.Labels = maps.Clone(n.Labels)
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = name // as in Kubernetes, so that selectors can name it
	if len(n.Spec.Finalizers) == 0 {
		n.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
	}
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	return n, stored
}
