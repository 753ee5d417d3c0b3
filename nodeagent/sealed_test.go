package nodeagent

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// sealedObjects is a node's copy with one Secret.
type sealedObjects struct{ data map[string][]byte }

func (o sealedObjects) ConfigMap(string, string) (*corev1.ConfigMap, bool) { return nil, false }
func (o sealedObjects) Secret(_, name string) (*corev1.Secret, bool) {
	return &corev1.Secret{Data: o.data}, name == "s"
}

func TestMask(t *testing.T) {
	for _, x := range []struct{ text, want string }{
		{`exec: "hunter2-and-more": not found`, `exec: "***": not found`},
		{`exec: "first\nsecond": not found`, `exec: "***": not found`},
		{"first second", "*** ***"},
		{"nothing", "nothing"},
		{"ab", "ab"},
	} {
		if got := Mask(x.text, []string{"hunter2", "first\nsecond", "hunter2-and-more", "ab", ""}); got != x.want {
			t.Errorf("%s: got %s, want %s", x.text, got, x.want)
		}
	}
}

// What a container takes from a Secret is in no error about its start.
func TestErrorsOfTheStartTellNoSecret(t *testing.T) {
	secret := sealedObjects{map[string][]byte{"a": []byte("../hunter2"), "b": []byte("other")}}
	c := &corev1.Container{
		Env: []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "a"}}}},
		VolumeMounts: []corev1.VolumeMount{{MountPath: "/x", SubPathExpr: "$(A)"}},
	}
	e := environment{pod: &corev1.Pod{}, container: c, objects: secret}
	if values := e.sealedValues(); len(values) != 1 || values[0] != "../hunter2" {
		t.Fatalf("values %q", values)
	}
	env, err := resolveEnv(e)
	if err != nil {
		t.Fatal(err)
	}
	err = expandArgs(c, env)
	if err == nil || !strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("the error says nothing that could be hidden: %v", err)
	}
	err = masked(err, e.sealedValues())
	if strings.Contains(err.Error(), "hunter2") || !errors.Is(err, schema.ErrRefused) {
		t.Error(err)
	}
	c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}
	if values := e.sealedValues(); len(values) != 3 {
		t.Errorf("values %q", values)
	}
}
