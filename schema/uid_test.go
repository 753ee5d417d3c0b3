package schema

import (
	"regexp"
	"testing"
	"time"
)

func TestUIDsAreUUIDsAndTellNamesApart(t *testing.T) {
	shape := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	seen := map[string]string{}
	for name, u := range map[string]string{
		"deployment":   string(UIDOf(ObjectKey{Kind: Deployments, Namespace: "a", Name: "b"})),
		"replicaset":   string(UIDOf(ObjectKey{Kind: ReplicaSets, Namespace: "a", Name: "b"})),
		"namespace":    string(UIDOf(ObjectKey{Kind: Namespaces, Name: "b"})),
		"desired pod":  string(UIDOf(ObjectKey{Kind: Pods, Namespace: "a", Name: "b"})),
		"a pod":        string(PodUID(PodKey{Namespace: "a", Name: "b"}, now)),
		"its follower": string(PodUID(PodKey{Namespace: "a", Name: "b"}, now.Add(1))),
	} {
		if !shape.MatchString(u) {
			t.Errorf("%s: %q is not a UUID", name, u)
		}
		if other, ok := seen[u]; ok {
			t.Errorf("%s and %s have one uid", name, other)
		}
		seen[u] = name
	}
	k := ObjectKey{Kind: Deployments, Namespace: "a", Name: "b"}
	if UIDOf(k) != UIDOf(k) {
		t.Error("one name, two uids")
	}
}
