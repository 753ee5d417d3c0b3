package nodeagent

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

func testEnvironment() environment {
	o := newObjects()
	o.replace([]corev1.ConfigMap{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "conf"},
		Data:       map[string]string{"A": "1", "B": "2", "no=name": "x", "with space": "y"},
	}}, []corev1.Secret{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "keys"},
		Data:       map[string][]byte{"TOKEN": []byte("t")}, StringData: map[string]string{"PLAIN": "p"},
	}}, nil)
	c := corev1.Container{Name: "web", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
	}}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "web-1", UID: "u1",
		Labels: map[string]string{"app": "web", "tier": `a"b`}, Annotations: map[string]string{"x/y": "z"},
	}}
	p.Spec.NodeName, p.Spec.ServiceAccountName = "n1", "default"
	p.Spec.Containers = []corev1.Container{c}
	return environment{pod: p, container: &c, objects: o, podIP: "10.0.0.1", hostIP: "192.0.2.1",
		node: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}}
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func amount(name, divisor string) *corev1.EnvVarSource {
	s := &corev1.ResourceFieldSelector{Resource: name}
	if divisor != "" {
		s.Divisor = resource.MustParse(divisor)
	}
	return &corev1.EnvVarSource{ResourceFieldRef: s}
}

func key(kind, name, k string, optional *bool) *corev1.EnvVarSource {
	ref := corev1.LocalObjectReference{Name: name}
	if kind == "secret" {
		return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref, Key: k, Optional: optional}}
	}
	return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref, Key: k, Optional: optional}}
}

func TestEnvSources(t *testing.T) {
	for _, c := range []struct {
		from *corev1.EnvVarSource
		want string
	}{
		{field("metadata.name"), "web-1"},
		{field("metadata.namespace"), "ns"},
		{field("metadata.uid"), "u1"},
		{field("metadata.labels['app']"), "web"},
		{field("metadata.labels['none']"), ""},
		{field("metadata.annotations['x/y']"), "z"},
		{field("metadata.labels"), "app=\"web\"\ntier=\"a\\\"b\""},
		{field("spec.nodeName"), "n1"},
		{field("spec.serviceAccountName"), "default"},
		{field("status.podIP"), "10.0.0.1"},
		{field("status.podIPs"), "10.0.0.1"},
		{field("status.hostIP"), "192.0.2.1"},
		{amount("requests.cpu", ""), "1"},
		{amount("requests.cpu", "1m"), "250"},
		{amount("limits.cpu", ""), "4"}, // the node's
		{amount("limits.memory", "1Mi"), "64"},
		{amount("requests.memory", "1Mi"), "64"}, // the limit's, as an API server defaults it
		{key("configmap", "conf", "A", nil), "1"},
		{key("secret", "keys", "TOKEN", nil), "t"},
		{key("secret", "keys", "PLAIN", nil), "p"},
	} {
		e := testEnvironment()
		e.container.Env = []corev1.EnvVar{{Name: "V", ValueFrom: c.from}}
		got, err := resolveEnv(e)
		if err != nil || len(got) != 1 || got[0].Value != c.want {
			t.Errorf("%+v: got %q, %v, want %q", c.from, got, err, c.want)
		}
	}
}

func TestEnvMissing(t *testing.T) {
	for _, from := range []func(*bool) *corev1.EnvVarSource{
		func(o *bool) *corev1.EnvVarSource { return key("configmap", "none", "A", o) },
		func(o *bool) *corev1.EnvVarSource { return key("configmap", "conf", "none", o) },
		func(o *bool) *corev1.EnvVarSource { return key("secret", "none", "A", o) },
		func(o *bool) *corev1.EnvVarSource { return key("secret", "keys", "none", o) },
	} {
		e := testEnvironment()
		e.container.Env = []corev1.EnvVar{{Name: "V", ValueFrom: from(nil)}}
		if _, err := resolveEnv(e); !errors.Is(err, schema.ErrNotFound) {
			t.Errorf("%+v: %v, want ErrNotFound", from(nil), err)
		}
		e.container.Env[0].ValueFrom = from(ptr.To(true))
		if got, err := resolveEnv(e); err != nil || len(got) != 0 {
			t.Errorf("optional %+v: %v, %v, want no variable", from(nil), got, err)
		}
	}
	e := testEnvironment()
	e.container.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}}}}
	if _, err := resolveEnv(e); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("envFrom: %v, want ErrNotFound", err)
	}
	e.container.EnvFrom = nil
	e.container.Env = []corev1.EnvVar{{Name: "V", ValueFrom: field("spec.nothing")}}
	if _, err := resolveEnv(e); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("unknown field: %v, want ErrRefused", err)
	}
}

// envFrom first, names that cannot be left out, env on top, earlier variables
// in later ones.
func TestEnvOrder(t *testing.T) {
	e := testEnvironment()
	e.container.EnvFrom = []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}}}
	e.container.Env = []corev1.EnvVar{
		{Name: "P_A", Value: "over"},
		{Name: "X", Value: "$(P_A)-$(P_B)-$(LATER)-$$(P_A)-$"},
		{Name: "LATER", Value: "l"},
	}
	got, err := resolveEnv(e)
	want := []variable{{"P_A", "over"}, {"P_B", "2"}, {"P_with space", "y"}, {"X", "over-2-$(LATER)-$(P_A)-$"}, {"LATER", "l"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
	e.container.Command, e.container.Args = []string{"$(X"}, []string{"$(LATER)", "$(NONE)", "$$(LATER)"}
	if err := expandArgs(e.container, got); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(e.container.Args, []string{"l", "$(NONE)", "$(LATER)"}) || e.container.Command[0] != "$(X" {
		t.Errorf("expanded to %q %q", e.container.Command, e.container.Args)
	}
}

// A subPathExpr becomes a subPath of known variables, or the container waits: a
// path that is empty or leads out would mount more than was meant.
func TestSubPathExpr(t *testing.T) {
	vars := []variable{{"POD", "web-1"}, {"UP", "../.."}, {"EMPTY", ""}, {"ROOT", "/etc"}}
	for expr, want := range map[string]string{
		"logs/$(POD)": "logs/web-1",
		"$$(POD)":     "$(POD)",
		"$(EMPTY)a":   "a",
		"a/$(NONE)":   "error: there is no variable NONE",
		"$(UP)":       "error: which is no path below the volume",
		"$(ROOT)":     "error: which is no path below the volume",
		"$(EMPTY)":    "error: which is no path below the volume",
	} {
		c := &corev1.Container{VolumeMounts: []corev1.VolumeMount{{MountPath: "/m", SubPathExpr: expr}}}
		err := expandArgs(c, vars)
		if text, bad := strings.CutPrefix(want, "error: "); bad {
			if !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %s", expr, err, want)
			}
		} else if err != nil || c.VolumeMounts[0].SubPath != want {
			t.Errorf("%s gave %q, %v; want %q", expr, c.VolumeMounts[0].SubPath, err, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"$(A)", "$$(A)", "$(", "$", "$$$(A)$", "x$(A)y$(B)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := expand(s, func(string) (string, bool) { return "", false }); len(got) > len(s) {
			t.Errorf("expanding %q without variables grew to %q", s, got)
		}
	})
}

func TestRunAsNonRoot(t *testing.T) {
	for _, c := range []struct {
		user    *int64
		nonRoot bool
		image   string
		ok      bool
	}{
		{nil, false, "", true},
		{nil, true, "", false},
		{nil, true, "root", false},
		{nil, true, "0:0", false},
		{nil, true, "nobody", false},
		{nil, true, "65534:65534", true},
		{ptr.To(int64(0)), true, "1000", false},
		{ptr.To(int64(1000)), true, "", true},
	} {
		p := &corev1.Pod{}
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: c.user, RunAsNonRoot: &c.nonRoot}
		if err := mayRun(p, &corev1.Container{}, Image{User: c.image}); (err == nil) != c.ok {
			t.Errorf("user %v, nonRoot %v, image's %q: %v", c.user, c.nonRoot, c.image, err)
		}
	}
}

func TestEnvNamesTheAPIOnlyWhereThereIsOne(t *testing.T) {
	e := testEnvironment()
	cfg := Config{PodAPI: "10.42.0.1:7420", HostAPI: "[::1]:7420"}
	own := e.pod.DeepCopy()
	own.Spec.HostNetwork = true
	for _, c := range []struct {
		api  string
		want string
	}{
		{cfg.apiFor(e.pod), "KUBERNETES_SERVICE_HOST=10.42.0.1 KUBERNETES_SERVICE_PORT=7420 KUBERNETES_SERVICE_PORT_HTTPS=7420 AT=10.42.0.1"},
		{cfg.apiFor(own), "KUBERNETES_SERVICE_HOST=::1 KUBERNETES_SERVICE_PORT=7420 KUBERNETES_SERVICE_PORT_HTTPS=7420 AT=::1"},
		{"", "AT=$(KUBERNETES_SERVICE_HOST)"},
	} {
		e.api = c.api
		e.container.Env = []corev1.EnvVar{{Name: "AT", Value: "$(KUBERNETES_SERVICE_HOST)"}}
		vars, err := resolveEnv(e)
		var got []string
		for _, v := range vars {
			got = append(got, v.Name+"="+v.Value)
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q: %v, %v", c.api, got, err)
		}
	}
	e.api = cfg.PodAPI
	e.container.Env = []corev1.EnvVar{{Name: "KUBERNETES_SERVICE_HOST", Value: "mine"}}
	if vars, err := resolveEnv(e); err != nil || vars[0].Value != "mine" {
		t.Errorf("the manifest does not win: %v, %v", vars, err)
	}
}
