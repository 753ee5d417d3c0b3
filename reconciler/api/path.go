package api

import "strings"

// A target is what a path below /api or /apis names.
type target struct {
	group, version string
	legacyWatch    bool // the old way to watch: /api/v1/watch/…
	namespace      string
	resource       string // "" for the version itself, which is discovery
	name           string
	subresource    string // with its slashes, should it have some
}

// parseTarget reads a path below /api or /apis. It is false for one that has no
// version; whether there is such a resource is not known here.
func parseTarget(path string) (target, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var t target
	switch {
	case parts[0] == "api" && len(parts) > 1:
		t.version, parts = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) > 2:
		t.group, t.version, parts = parts[1], parts[2], parts[3:]
	default:
		return target{}, false
	}
	if len(parts) > 1 && parts[0] == "watch" {
		t.legacyWatch, parts = true, parts[1:]
	}
	// The namespace itself has subresources too, and no resource is called so.
	if len(parts) > 2 && parts[0] == "namespaces" && parts[2] != "status" && parts[2] != "finalize" {
		t.namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 0 {
		t.resource, parts = parts[0], parts[1:]
	}
	if len(parts) > 0 {
		t.name, parts = parts[0], parts[1:]
	}
	t.subresource = strings.Join(parts, "/")
	return t, true
}
