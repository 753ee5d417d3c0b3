package api

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

// Clients write booleans in their language's way; Python's sends watch=False with
// each list.
func TestWatchIsReadAsEveryFlagIs(t *testing.T) {
	for query, want := range map[string]string{
		"": "list", "watch=False": "list", "watch=false": "list", "watch=0": "list",
		"watch=True": "watch", "watch=1": "watch", "watch=": "watch", "watch": "watch",
	} {
		if verb := verbOf(httptest.NewRequest("GET", "/api/v1/pods?"+query, nil), target{}); verb != want {
			t.Errorf("%s: %s", query, verb)
		}
	}
}

// As in Kubernetes an object is made in its namespace, changed by its name, and
// many are deleted in one namespace at a time: a client that has forgotten the
// namespace ends no pod of the others.
func TestMethodsOfPathsThatHaveThemNot(t *testing.T) {
	d := newDoor(t).furnish()
	const want = "405 MethodNotAllowed: the server does not allow this method on the requested resource"
	for _, q := range [][2]string{
		{"DELETE", "/api/v1/pods"},
		{"DELETE", "/api/v1/namespaces//pods"},
		{"DELETE", "/api/v1/watch/namespaces/default/pods"},
		{"DELETE", "/api/v1/watch/namespaces/default/pods/talk"},
		{"PUT", "/api/v1/namespaces/default/pods"},
		{"PATCH", "/api/v1/namespaces/default/configmaps"},
		{"POST", "/api/v1/pods?dryRun=All"},
		{"POST", "/api/v1/namespaces/default/configmaps/conf"},
	} {
		if s := d.ask(q[0], q[1], "{}", "Content-Type: application/json").status(t); s != want {
			t.Errorf("%s %s: %s", q[0], q[1], s)
		}
	}
	if len(d.restart) != 0 {
		t.Error("ended:", d.restart)
	}
	if a := d.ask("DELETE", "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb", ""); a.StatusCode != 200 || fmt.Sprint(d.restart) != "[default/web-7-a default/web-7-b]" {
		t.Error(a.Status, d.restart)
	}
}

// What is well formed and cannot be done is 422, as in Kubernetes; what cannot be
// read is 400.
func TestWhatCannotBeDoneIsInvalid(t *testing.T) {
	d := newDoor(t).furnish()
	const conf, mayI = "/api/v1/namespaces/default/configmaps/conf?dryRun=All", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	const invalid = `422 Invalid: SelfSubjectAccessReview.authorization.k8s.io "" is invalid: spec.`
	for _, q := range []struct{ method, path, kind, body, want string }{
		{"PATCH", conf, jsonPatch, `[{"op":"test","path":"/data/n","value":"red"}]`, "422 Invalid: "},
		{"PATCH", conf, jsonPatch, `[{"op":"remove","path":"/data/nosuch"}]`, "422 Invalid: "},
		{"PATCH", conf, jsonPatch, `[`, "400 BadRequest: "},
		{"PATCH", conf, jsonPatch, "[" + strings.Repeat(`{"op":"test","path":"/data/n","value":"blue"},`, maxOperations) + `{"op":"test","path":"/data/n","value":"blue"}]`,
			"413 RequestEntityTooLarge: Request entity too large: The allowed maximum operations in a JSON patch is 1000, got 1001"},
		{"POST", mayI, string(jsonMedia), `{"spec":{}}`, invalid + `resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified`},
		{"POST", mayI, string(jsonMedia), `{"spec":{"resourceAttributes":{"verb":"get"},"nonResourceAttributes":{"path":"/"}}}`, invalid + `nonResourceAttributes: Invalid value: {"path":"/"}: cannot be specified in combination with resourceAttributes`},
	} {
		if s := d.ask(q.method, q.path, q.body, "Content-Type: "+q.kind).status(t); !strings.HasPrefix(s, q.want) {
			t.Errorf("%.60s:\n got %s\nwant %s", q.body, s, q.want)
		}
	}
}

// Whatever way a Secret is asked for, only administrators have it.
func TestNobodyElseSeesASecret(t *testing.T) {
	d := newDoor(t, func(o *Options) { o.Streams = stub{} }).furnish()
	for _, path := range []string{
		"secrets", "namespaces/default/secrets", "namespaces//secrets", "namespaces/default/secrets/", "namespaces/default/secrets/hush", "namespaces/default/%73ecrets/hush",
		"secrets?watch=1", "secrets?fieldSelector=metadata.name%3Dhush&limit=1", "watch/secrets", "watch/namespaces/default/secrets/hush", "namespaces/default/secrets/hush/status",
	} {
		for _, accept := range []string{"application/json", "application/yaml", string(protoMedia), "application/json;as=Table;g=meta.k8s.io;v=v1",
			"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"} {
			for _, method := range []string{"GET", "HEAD", "OPTIONS", "PATCH", "DELETE", "TRACE"} {
				a := d.ask(method, "/api/v1/"+path, "", "Authorization: Bearer view", "Accept: "+accept)
				if a.StatusCode != 403 && a.StatusCode != 404 || strings.Contains(a.text, "sesame") || strings.Contains(a.text, "c2VzYW1l") {
					t.Errorf("%s %s as %s: %s %s", method, path, accept, a.Status, a.text)
				}
			}
		}
	}
}
