package gateway

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// references lists the ConfigMaps and Secrets that a pod uses, whether they
// exist or not. A node is sent no others.
func references(p *corev1.Pod) map[schema.ObjectKey]bool {
	r := refs{namespace: p.Namespace, keys: map[schema.ObjectKey]bool{}}
	for _, s := range p.Spec.ImagePullSecrets {
		r.secret(s.Name)
	}
	for i := range p.Spec.Volumes {
		r.volume(&p.Spec.Volumes[i])
	}
	for i := range p.Spec.InitContainers {
		r.container(&p.Spec.InitContainers[i])
	}
	for i := range p.Spec.Containers {
		r.container(&p.Spec.Containers[i])
	}
	return r.keys
}

type refs struct {
	namespace string
	keys      map[schema.ObjectKey]bool
}

func (r refs) configMap(name string) { r.add(schema.ConfigMaps, name) }
func (r refs) secret(name string)    { r.add(schema.Secrets, name) }

func (r refs) add(k schema.Kind, name string) {
	if name != "" {
		r.keys[schema.ObjectKey{Kind: k, Namespace: r.namespace, Name: name}] = true
	}
}

func (r refs) volume(v *corev1.Volume) {
	if v.ConfigMap != nil {
		r.configMap(v.ConfigMap.Name)
	}
	if v.Secret != nil {
		r.secret(v.Secret.SecretName)
	}
	if v.Projected == nil {
		return
	}
	for _, s := range v.Projected.Sources {
		if s.ConfigMap != nil {
			r.configMap(s.ConfigMap.Name)
		}
		if s.Secret != nil {
			r.secret(s.Secret.Name)
		}
	}
}

func (r refs) container(c *corev1.Container) {
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef != nil {
			r.configMap(from.ConfigMapRef.Name)
		}
		if from.SecretRef != nil {
			r.secret(from.SecretRef.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
			r.configMap(ref.Name)
		}
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			r.secret(ref.Name)
		}
	}
}
