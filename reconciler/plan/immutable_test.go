package plan

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

func TestUnlocked(t *testing.T) {
	yes, no := true, false
	meta := func(kind, source string) (metav1.TypeMeta, metav1.ObjectMeta) {
		return metav1.TypeMeta{APIVersion: "v1", Kind: kind}, metav1.ObjectMeta{Namespace: "default", Name: "x", Annotations: map[string]string{schema.AnnotationSource: source}}
	}
	config := func(immutable *bool, value string, binary []byte) *corev1.ConfigMap {
		c := &corev1.ConfigMap{Immutable: immutable, Data: map[string]string{"k": value}}
		c.TypeMeta, c.ObjectMeta = meta("ConfigMap", "conf.yaml:7")
		if binary != nil {
			c.BinaryData = map[string][]byte{"b": binary}
		}
		return c
	}
	secret := func(immutable *bool, value string) *corev1.Secret {
		s := &corev1.Secret{Immutable: immutable, Data: map[string][]byte{"k": []byte(value)}}
		s.TypeMeta, s.ObjectMeta = meta("Secret", "a:b.yaml:3")
		return s
	}
	labelled := config(&yes, "1", nil)
	labelled.Labels = map[string]string{"app": "web"}
	const forbidden = "Forbidden: field is immutable when `immutable` is set"
	for name, c := range map[string]struct {
		old, fresh schema.Object
		want       []string // place, object and field of each fault
	}{
		"the same":                  {config(&yes, "1", []byte("b")), config(&yes, "1", []byte("b")), nil},
		"labels may change":         {config(&yes, "1", nil), labelled, nil},
		"data":                      {config(&yes, "1", nil), config(&yes, "2", nil), []string{"conf.yaml:7: ConfigMap default/x: data: "}},
		"binary data":               {config(&yes, "1", nil), config(&yes, "1", []byte("b")), []string{"conf.yaml:7: ConfigMap default/x: binaryData: "}},
		"the lock itself":           {config(&yes, "1", nil), config(&no, "1", nil), []string{"conf.yaml:7: ConfigMap default/x: immutable: "}},
		"the lock left out":         {secret(&yes, "1"), secret(nil, "1"), []string{"a:b.yaml:3: Secret default/x: immutable: "}},
		"lock and data":             {secret(&yes, "1"), secret(nil, "2"), []string{"a:b.yaml:3: Secret default/x: immutable: ", "a:b.yaml:3: Secret default/x: data: "}},
		"a secret's data":           {secret(&yes, "1"), secret(&yes, "2"), []string{"a:b.yaml:3: Secret default/x: data: "}},
		"locked from now on":        {config(nil, "1", nil), config(&yes, "2", nil), nil},
		"never locked":              {secret(&no, "1"), secret(nil, "2"), nil},
		"new":                       {nil, config(&yes, "1", nil), nil},
		"another kind is not asked": {config(&yes, "1", nil), &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Name: "x"}}, nil},
	} {
		standing := func(schema.ObjectKey) schema.Object { return c.old }
		same := func(a, b *corev1.Secret) bool { return equality.Semantic.DeepEqual(a.Data, b.Data) }
		var got []string
		for _, f := range Unlocked([]schema.Object{c.fresh}, standing, same) {
			got = append(got, f.String())
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], c.want[i]+forbidden) {
				t.Errorf("%s: %q, want %q", name, got[i], c.want[i]+forbidden)
			}
		}
	}
}
