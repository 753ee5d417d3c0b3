package kv

import (
	"regexp"
	"testing"

	"pgregory.net/rapid"

	"github.com/pawl-project/pawl/schema"
)

// keyForm is what NATS KV takes as a key.
var keyForm = regexp.MustCompile(`^[-/_=.a-zA-Z0-9]+$`)

var kinds = []schema.Kind{schema.Pods, schema.Deployments, schema.Namespaces, Revisions}

func TestKeysAreOneToOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[-a-z0-9._:A-Z$ äß%=]{1,40}`)
		k := schema.ObjectKey{
			Kind:      rapid.SampledFrom(kinds).Draw(t, "kind"),
			Namespace: rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-z0-9][-a-z0-9]{0,20}`)).Draw(t, "namespace"),
			Name:      name.Draw(t, "name"),
		}
		key := ObjectKey(k)
		if !keyForm.MatchString(key) {
			t.Fatalf("%v makes the key %q", k, key)
		}
		back, err := ParseObjectKey(key)
		if err != nil || back != k {
			t.Fatalf("%v → %q → %v, %v", k, key, back, err)
		}
		n := schema.NodeName(rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?`).Draw(t, "node"))
		p := schema.PodKey{Namespace: rapid.StringMatching(`[a-z0-9][-a-z0-9]{0,20}`).Draw(t, "pod's namespace"), Name: k.Name}
		key = AssignmentKey(n, p)
		if !keyForm.MatchString(key) {
			t.Fatalf("%v on %v makes the key %q", p, n, key)
		}
		n2, p2, err := ParseAssignmentKey(key)
		if err != nil || n2 != n || p2 != p {
			t.Fatalf("%v on %v → %q → %v on %v, %v", p, n, key, p2, n2, err)
		}
	})
}

func TestKeysReadAsTheyShould(t *testing.T) {
	for want, got := range map[string]string{
		"deployments.default.web":           ObjectKey(schema.ObjectKey{Kind: schema.Deployments, Namespace: "default", Name: "web"}),
		"nodes._.n1":                        ObjectKey(schema.ObjectKey{Kind: schema.Nodes, Name: "n1"}),
		"configmaps.default.a_b":            ObjectKey(schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "default", Name: "a.b"}),
		"configmaps.default.system=3Aa=5Fb": ObjectKey(schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "default", Name: "system:a_b"}),
		"n1.default.web":                    AssignmentKey("n1", schema.PodKey{Namespace: "default", Name: "web"}),
		"node.n1":                           NodeLeaseKey("n1"),
		"pawl.events.default.pods.web_0.1f": EventSubject(schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: "web.0"}, "web.0.1f"),
		"pawl.events._.namespaces.team.2e":  EventSubject(schema.ObjectKey{Kind: schema.Namespaces, Name: "team"}, "team.2e"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What parses is what the layout writes: no two keys stand for one object.
func FuzzParseKeys(f *testing.F) {
	for _, s := range []string{"pods.default.a_b", "nodes._.n1", "n1.default.web=3A", "a.b", "a..b", "a.b.=", "a.b.=4", "a.b.=+1", "a.b.=4a", "pods._x.y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParseObjectKey(s); err == nil && ObjectKey(k) != s {
			t.Errorf("%q parses as %v, which is written %q", s, k, ObjectKey(k))
		}
		if n, p, err := ParseAssignmentKey(s); err == nil && AssignmentKey(n, p) != s {
			t.Errorf("%q parses as %v on %v, which is written %q", s, p, n, AssignmentKey(n, p))
		}
	})
}
