package nodeagent

import (
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/pawl-project/pawl/schema"
)

// objects is the node's copy of the ConfigMaps and Secrets its pods use. It
// holds Secrets in the clear: they are on disk with mode 0600 and in no log.
type objects struct {
	mu         sync.RWMutex
	configMaps map[schema.ObjectKey]*corev1.ConfigMap // shared and read-only
	secrets    map[schema.ObjectKey]*corev1.Secret
}

func newObjects() *objects {
	return &objects{configMaps: map[schema.ObjectKey]*corev1.ConfigMap{}, secrets: map[schema.ObjectKey]*corev1.Secret{}}
}

// ConfigMap implements Objects.
func (o *objects) ConfigMap(namespace, name string) (*corev1.ConfigMap, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	m, ok := o.configMaps[schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: namespace, Name: name}]
	return m, ok
}

// Secret implements Objects.
func (o *objects) Secret(namespace, name string) (*corev1.Secret, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	s, ok := o.secrets[schema.ObjectKey{Kind: schema.Secrets, Namespace: namespace, Name: name}]
	return s, ok
}

// replace puts objects in and takes others out, and says which changed.
func (o *objects) replace(maps []corev1.ConfigMap, secrets []corev1.Secret, remove []schema.ObjectKey) (changed map[schema.ObjectKey]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	changed = map[schema.ObjectKey]bool{}
	for _, k := range remove {
		_, m := o.configMaps[k]
		_, s := o.secrets[k]
		if m || s {
			delete(o.configMaps, k)
			delete(o.secrets, k)
			changed[k] = true
		}
	}
	for i := range maps {
		m := &maps[i]
		k := schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: m.Namespace, Name: m.Name}
		if old := o.configMaps[k]; old == nil || !equality.Semantic.DeepEqual(old.Data, m.Data) || !equality.Semantic.DeepEqual(old.BinaryData, m.BinaryData) {
			changed[k] = true
		}
		o.configMaps[k] = m
	}
	for i := range secrets {
		s := &secrets[i]
		k := schema.ObjectKey{Kind: schema.Secrets, Namespace: s.Namespace, Name: s.Name}
		if old := o.secrets[k]; old == nil || old.Type != s.Type || !equality.Semantic.DeepEqual(old.Data, s.Data) || !equality.Semantic.DeepEqual(old.StringData, s.StringData) {
			changed[k] = true
		}
		o.secrets[k] = s
	}
	return changed
}

// keys lists what there is.
func (o *objects) keys() (all []schema.ObjectKey) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for k := range o.configMaps {
		all = append(all, k)
	}
	for k := range o.secrets {
		all = append(all, k)
	}
	return all
}

// pullSecrets lists the pod's imagePullSecrets that are here.
func (o *objects) pullSecrets(p *corev1.Pod) (auth []corev1.Secret) {
	for _, r := range p.Spec.ImagePullSecrets {
		if s, ok := o.Secret(p.Namespace, r.Name); ok && (s.Type == corev1.SecretTypeDockerConfigJson || s.Type == corev1.SecretTypeDockercfg) {
			auth = append(auth, *s)
		}
	}
	return auth
}

// takeObjects takes the objects of a set. Those it no longer names are dropped
// only when the set is whole and no pod uses them: a pod must be able to restart
// while the control plane builds up its store anew.
func (a *agent) takeObjects(s Assigned, remove []schema.ObjectKey, whole bool) {
	named := namedIn(s)
	a.mu.Lock()
	if whole {
		remove = nil
		a.unnamed = map[schema.ObjectKey]bool{}
		for _, k := range a.objects.keys() {
			if !named[k] {
				a.unnamed[k] = true
			}
		}
		a.dropUnnamed()
	} else {
		maps.DeleteFunc(a.unnamed, func(k schema.ObjectKey, _ bool) bool { return named[k] })
	}
	a.mu.Unlock()
	changed := a.replaceObjects(s.ConfigMaps, s.Secrets, remove)
	if len(changed) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.pods {
		for k := range uses(w.wanted()) {
			if changed[k] {
				w.post((*worker).objectsChanged)
				break
			}
		}
	}
}

// dropUnnamed drops the objects that the control plane does not name any more and
// that no pod uses. Needs a.mu.
func (a *agent) dropUnnamed() {
	if len(a.unnamed) == 0 {
		return
	}
	used := map[schema.ObjectKey]bool{}
	for _, w := range a.pods {
		maps.Copy(used, uses(w.wanted()))
	}
	var free []schema.ObjectKey
	for k := range a.unnamed {
		if !used[k] {
			free = append(free, k)
			delete(a.unnamed, k)
		}
	}
	a.replaceObjects(nil, nil, free)
}

// replaceObjects puts objects in and takes others out, in memory and on disk, and
// says which changed.
func (a *agent) replaceObjects(maps []corev1.ConfigMap, secrets []corev1.Secret, remove []schema.ObjectKey) map[schema.ObjectKey]bool {
	a.replacing.Lock() // what one adds, another must not take from the disk
	defer a.replacing.Unlock()
	changed := a.objects.replace(maps, secrets, remove)
	for k := range changed {
		if err := a.keepObject(k); err != nil {
			a.log.Error("cannot keep an object on disk: pods that use it may not start after a reboot without control plane", "object", k, "err", err)
		}
	}
	return changed
}

// keepObject brings an object's file up to date.
func (a *agent) keepObject(k schema.ObjectKey) error {
	if m, ok := a.objects.ConfigMap(k.Namespace, k.Name); ok && k.Kind == schema.ConfigMaps {
		return a.disk.putObject(k, m)
	}
	if s, ok := a.objects.Secret(k.Namespace, k.Name); ok && k.Kind == schema.Secrets {
		return a.disk.putObject(k, s)
	}
	return a.disk.forgetObject(k)
}

func namedIn(s Assigned) map[schema.ObjectKey]bool {
	named := map[schema.ObjectKey]bool{}
	for i := range s.ConfigMaps {
		named[schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: s.ConfigMaps[i].Namespace, Name: s.ConfigMaps[i].Name}] = true
	}
	for i := range s.Secrets {
		named[schema.ObjectKey{Kind: schema.Secrets, Namespace: s.Secrets[i].Namespace, Name: s.Secrets[i].Name}] = true
	}
	return named
}

// objectsChanged has the volumes brought up to date, and what waited for an
// object tried at once.
func (w *worker) objectsChanged() {
	w.known.VolumesReady = false
	w.known.Volumes.RetryAt = w.known.Volumes.At
	for name, note := range w.known.Containers {
		note.Start.RetryAt = note.Start.At
		note.Image.Failure.RetryAt = note.Image.Failure.At
		w.known.Containers[name] = note
	}
}

// uses lists the ConfigMaps and Secrets that a pod refers to.
func uses(p *corev1.Pod) map[schema.ObjectKey]bool {
	used := map[schema.ObjectKey]bool{}
	add := func(k schema.Kind, name string) {
		if name != "" {
			used[schema.ObjectKey{Kind: k, Namespace: p.Namespace, Name: name}] = true
		}
	}
	for _, r := range p.Spec.ImagePullSecrets {
		add(schema.Secrets, r.Name)
	}
	for _, v := range p.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add(schema.ConfigMaps, v.ConfigMap.Name)
		case v.Secret != nil:
			add(schema.Secrets, v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					add(schema.ConfigMaps, s.ConfigMap.Name)
				}
				if s.Secret != nil {
					add(schema.Secrets, s.Secret.Name)
				}
			}
		}
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			usesOf(&list[i], add)
		}
	}
	return used
}

func usesOf(c *corev1.Container, add func(schema.Kind, string)) {
	for _, f := range c.EnvFrom {
		if f.ConfigMapRef != nil {
			add(schema.ConfigMaps, f.ConfigMapRef.Name)
		}
		if f.SecretRef != nil {
			add(schema.Secrets, f.SecretRef.Name)
		}
	}
	for _, e := range c.Env {
		if f := e.ValueFrom; f != nil && f.ConfigMapKeyRef != nil {
			add(schema.ConfigMaps, f.ConfigMapKeyRef.Name)
		} else if f != nil && f.SecretKeyRef != nil {
			add(schema.Secrets, f.SecretKeyRef.Name)
		}
	}
}
