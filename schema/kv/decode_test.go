package kv

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

func TestValuesAreWhatTheirKeysSay(t *testing.T) {
	pod := somePod("web")
	node := corev1.Node{}
	node.Name = "n1"
	for name, c := range map[string]struct {
		key  string
		raw  string
		fits bool
	}{
		"a pod's report":               {"pods.default.web", string(encode(t, schema.PodReport{Node: "n1", Pod: pod})), true},
		"the report of another pod":    {"pods.default.other", string(encode(t, schema.PodReport{Node: "n1", Pod: pod})), false},
		"a node":                       {"nodes._.n1", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}`, true},
		"a node without its kind":      {"nodes._.n1", `{"metadata":{"name":"n1"}}`, true},
		"a pod in a node's place":      {"nodes._.n1", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"n1"}}`, false},
		"a deployment":                 {"deployments.default.web", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"namespace":"default","name":"web"}}`, true},
		"a deployment of another name": {"deployments.default.x", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"namespace":"default","name":"web"}}`, false},
		"a revision":                   {"revisions._.abc", `{"commit":"abc"}`, true},
		"a kind nobody knows":          {"unicorns.default.x", `{}`, false},
		"garbage":                      {"pods.default.web", `{`, false},
		"no object":                    {"nodes._.n1", `[]`, false},
		"a key nobody writes":          {"pods", `{}`, false},
	} {
		if _, err := DecodeActual(c.key, []byte(c.raw)); (err == nil) != c.fits || err != nil && !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a := encode(t, schema.Assignment{Node: "n1", Pod: pod})
	if got, err := DecodeAssignment("n1.default.web", a); err != nil || got.Pod.UID != "u" {
		t.Errorf("assignment: %v, %v", got, err)
	}
	for _, key := range []string{"n2.default.web", "n1.default.x", "n1.web", "N1.default.web"} {
		if _, err := DecodeAssignment(key, a); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("assignment at %s: %v", key, err)
		}
	}
}

// Whatever stands in the store, decoding it says yes or no.
func FuzzDecodeValues(f *testing.F) {
	f.Add("pods.default.web", []byte(`{"node":"n1","pod":{"metadata":{"namespace":"default","name":"web"}}}`))
	f.Add("nodes._.n1", []byte(`{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1"}}`))
	f.Add("revisions._.abc", []byte(`{"commit":"abc"}`))
	f.Fuzz(func(t *testing.T, key string, raw []byte) {
		if a, err := DecodeActual(key, raw); err == nil && a.Report == nil && a.Revision == nil && a.Object == nil {
			t.Errorf("%q %q decodes to nothing", key, raw)
		}
		if o, err := DecodeDesired(key, raw); err == nil && ObjectKey(schema.KeyOf(o)) != key {
			t.Errorf("%q holds %v", key, schema.KeyOf(o))
		}
		if a, err := DecodeAssignment(key, raw); err == nil && AssignmentKey(a.Node, schema.PodKey{Namespace: a.Pod.Namespace, Name: a.Pod.Name}) != key {
			t.Errorf("%q holds %v", key, a)
		}
	})
}
