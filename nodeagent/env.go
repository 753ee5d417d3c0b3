package nodeagent

import (
	"fmt"
	"path/filepath"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// An environment is what a container's environment is resolved from.
type environment struct {
	pod       *corev1.Pod
	container *corev1.Container
	objects   Objects
	podIP     string
	hostIP    string
	node      corev1.ResourceList // stands in for limits that are not set
	api       string              // where the pod reaches the API, as host:port; "": nowhere
}

// A variable is one resolved environment variable.
type variable struct{ Name, Value string }

// resolveEnv lists the container's variables in order: envFrom, overridden by
// env. A reference to what is not there and not optional is an error wrapping
// schema.ErrNotFound: the container waits for it.
func resolveEnv(e environment) ([]variable, error) {
	vars := &variables{at: map[string]int{}}
	e.addAPI(vars)
	for i := range e.container.EnvFrom {
		if err := e.addFrom(vars, &e.container.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range e.container.Env {
		v := &e.container.Env[i]
		value, ok, err := e.value(v, vars)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", v.Name, err)
		}
		if ok {
			vars.set(v.Name, value)
		}
	}
	return vars.list, nil
}

// variables are in order of their first appearance; a later value replaces an earlier.
type variables struct {
	list []variable
	at   map[string]int
}

func (v *variables) set(name, value string) {
	if i, ok := v.at[name]; ok {
		v.list[i].Value = value
		return
	}
	v.at[name] = len(v.list)
	v.list = append(v.list, variable{name, value})
}

func (v *variables) get(name string) (string, bool) {
	if i, ok := v.at[name]; ok {
		return v.list[i].Value, true
	}
	return "", false
}

func (e environment) addFrom(vars *variables, f *corev1.EnvFromSource) error {
	data := map[string]string{}
	switch {
	case f.ConfigMapRef != nil:
		m, ok := e.objects.ConfigMap(e.pod.Namespace, f.ConfigMapRef.Name)
		if !ok {
			return absent(f.ConfigMapRef.Optional, "configmap %q not found", f.ConfigMapRef.Name)
		}
		data = m.Data
	case f.SecretRef != nil:
		s, ok := e.objects.Secret(e.pod.Namespace, f.SecretRef.Name)
		if !ok {
			return absent(f.SecretRef.Optional, "secret %q not found", f.SecretRef.Name)
		}
		data = secretData(s)
	}
	names := make([]string, 0, len(data))
	for k := range data {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		if name := f.Prefix + k; validEnvName(name) {
			vars.set(name, data[k])
		}
	}
	return nil
}

// validEnvName says whether a key of an object can be a variable's name; what
// cannot is skipped, as in Kubernetes.
func validEnvName(name string) bool {
	for _, r := range name {
		if r == '=' || r < 0x20 || r > 0x7e {
			return false
		}
	}
	return name != ""
}

// absent is the error for what is not there, nil when it is optional.
func absent(optional *bool, format string, args ...any) error {
	if optional != nil && *optional {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, schema.ErrNotFound)...)
}

// secretData is a Secret's data with stringData on top, as an API server merges them.
func secretData(s *corev1.Secret) map[string]string {
	data := make(map[string]string, len(s.Data)+len(s.StringData))
	for k, v := range s.Data {
		data[k] = string(v)
	}
	for k, v := range s.StringData {
		data[k] = v
	}
	return data
}

// value resolves one variable; ok is false when it is left out.
func (e environment) value(v *corev1.EnvVar, vars *variables) (value string, ok bool, err error) {
	from := v.ValueFrom
	switch {
	case from == nil:
		return expand(v.Value, vars.get), true, nil
	case from.FieldRef != nil:
		value, err = e.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = e.resource(from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		m, found := e.objects.ConfigMap(e.pod.Namespace, r.Name)
		if !found {
			return "", false, absent(r.Optional, "configmap %q not found", r.Name)
		}
		if value, found = m.Data[r.Key]; !found {
			return "", false, absent(r.Optional, "couldn't find key %q in configmap %q", r.Key, r.Name)
		}
		return value, true, nil
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		s, found := e.objects.Secret(e.pod.Namespace, r.Name)
		if !found {
			return "", false, absent(r.Optional, "secret %q not found", r.Name)
		}
		if value, found = secretData(s)[r.Key]; !found {
			return "", false, absent(r.Optional, "couldn't find key %q in secret %q", r.Key, r.Name)
		}
		return value, true, nil
	}
	return "", false, fmt.Errorf("valueFrom names no known source: %w", schema.ErrRefused)
}

// field resolves a fieldRef.
func (e environment) field(path string) (string, error) {
	p := e.pod
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return joined(p.Labels), nil
	case "metadata.annotations":
		return joined(p.Annotations), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return e.hostIP, nil
	case "status.podIP", "status.podIPs":
		if p.Spec.HostNetwork {
			return e.hostIP, nil
		}
		return e.podIP, nil
	}
	if key, ok := subscript(path, "metadata.labels"); ok {
		return p.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return p.Annotations[key], nil
	}
	return "", fmt.Errorf("fieldPath %q is not supported: %w", path, schema.ErrRefused)
}

// subscript is x of path = field['x'].
func subscript(path, field string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// joined writes a map as the downward API does: key="escaped value", a line each.
func joined(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for k, v := range m {
		lines = append(lines, fmt.Sprintf("%s=%q", k, v))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// expand replaces $(NAME) by its value; $$ stands for one $, and what is not
// known stays as it is.
func expand(s string, get func(string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			ref := s[i : i+end+1]
			if value, ok := get(ref[2 : len(ref)-1]); ok {
				b.WriteString(value)
			} else {
				b.WriteString(ref)
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// expandArgs expands the container's command, args and the subPathExpr of its
// mounts, which becomes their subPath, by its variables. c is changed.
//
// An error wraps schema.ErrRefused: a subPathExpr names a variable that there is
// not, or a path that leaves the volume.
func expandArgs(c *corev1.Container, vars []variable) error {
	all := make(map[string]string, len(vars))
	for _, v := range vars {
		all[v.Name] = v.Value
	}
	get := func(name string) (string, bool) { v, ok := all[name]; return v, ok }
	for i := range c.Command {
		c.Command[i] = expand(c.Command[i], get)
	}
	for i := range c.Args {
		c.Args[i] = expand(c.Args[i], get)
	}
	for i := range c.VolumeMounts {
		if err := expandSubPath(&c.VolumeMounts[i], get); err != nil {
			return fmt.Errorf("mount %s: %w", c.VolumeMounts[i].MountPath, err)
		}
	}
	return nil
}

// expandSubPath refuses what would mount more of the volume than was meant.
func expandSubPath(m *corev1.VolumeMount, get func(string) (string, bool)) error {
	if m.SubPathExpr == "" {
		return nil
	}
	var missing []string
	m.SubPath = expand(m.SubPathExpr, func(name string) (string, bool) {
		v, ok := get(name)
		if !ok {
			missing = append(missing, name)
		}
		return v, ok
	})
	switch {
	case len(missing) > 0:
		return fmt.Errorf("subPathExpr %s: there is no variable %s: %w", m.SubPathExpr, strings.Join(missing, ", "), schema.ErrRefused)
	case !filepath.IsLocal(m.SubPath):
		return fmt.Errorf("subPathExpr %s: gives %q, which is no path below the volume: %w", m.SubPathExpr, m.SubPath, schema.ErrRefused)
	}
	return nil
}
