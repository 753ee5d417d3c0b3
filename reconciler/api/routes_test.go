package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// stub stands for the streams of pods.
type stub struct{}

func (stub) Log(w http.ResponseWriter, r *http.Request, k schema.PodKey) {
	fmt.Fprintf(w, "log of %s, %s", k, r.URL.RawQuery)
}

func (stub) Exec(w http.ResponseWriter, _ *http.Request, k schema.PodKey) {
	fmt.Fprintf(w, "exec in %s", k)
}

func (stub) Attach(w http.ResponseWriter, _ *http.Request, k schema.PodKey) {
	fmt.Fprintf(w, "attached to %s", k)
}

func (stub) PortForward(w http.ResponseWriter, _ *http.Request, k schema.PodKey) {
	fmt.Fprintf(w, "ports of %s", k)
}

func (stub) Archive(w http.ResponseWriter, _ *http.Request, k schema.PodKey) {
	fmt.Fprintf(w, "files of %s", k)
}

func TestSubresourcesAndRoutes(t *testing.T) {
	d := newDoor(t, func(o *Options) {
		o.Streams = stub{}
		o.Extra = []Route{
			{Kind: schema.Deployments, Subresource: "blame", Handler: func(w http.ResponseWriter, _ *http.Request, k schema.ObjectKey) { fmt.Fprint(w, "blame of ", k) }},
			{Path: "/own", Handler: func(w http.ResponseWriter, _ *http.Request, k schema.ObjectKey) { fmt.Fprint(w, "own") }},
		}
	}).furnish()
	const pod = "/api/v1/namespaces/default/pods/talk"
	for _, q := range []struct{ method, path, token, want string }{
		{"GET", pod + "/log?tailLines=1", "admin", "log of default/talk, tailLines=1"},
		{"GET", pod + "/log", "view", "log of default/talk, "},
		{"POST", pod + "/exec", "admin", "exec in default/talk"},
		{"POST", pod + "/attach", "admin", "attached to default/talk"},
		{"GET", pod + "/portforward", "admin", "ports of default/talk"},
		{"POST", pod + "/archive", "admin", "files of default/talk"},
		{"PUT", pod + "/archive", "admin", `update is not supported on resources of kind "pods"`},
		{"GET", pod + "/attach", "view", `cannot get resource "pods/attach"`},
		{"POST", pod + "/portforward", "view", `cannot create resource "pods/portforward"`},
		{"GET", pod + "/archive", "view", `cannot get resource "pods/archive"`},
		{"GET", "/apis/apps/v1/namespaces/default/deployments/web/blame", "view", `deployments.apps "web" is forbidden: User "vic" cannot get resource "deployments/blame" in API group "apps" in the namespace "default"`},
		{"GET", "/apis/apps/v1/namespaces/default/deployments/web/blame", "admin", "blame of deployments/default/web"},
		{"GET", "/own", "admin", "own"},
		{"GET", pod + "/exec", "view", `pods "talk" is forbidden: User "vic" cannot get resource "pods/exec" in API group "" in the namespace "default"`},
		{"GET", "/api/v1/namespaces/default/pods/nosuch/log", "admin", `pods "nosuch" not found`},
		{"DELETE", pod + "/log", "admin", `delete is not supported on resources of kind "pods"`},
		{"GET", "/own", "view", `forbidden: User "vic" cannot get path "/own"`},
		{"GET", pod + "/status", "view", `"phase":"Running"`},
		{"GET", "/apis/apps/v1/namespaces/default/replicasets/web-7/scale", "view", `"selector":"app=web"`},
		{"GET", "/api/v1/watch/namespaces/default/pods/talk?timeoutSeconds=1", "view", `{"type":"ADDED","object":{"kind":"Pod"`},
	} {
		a := d.ask(q.method, q.path, "", "Authorization: Bearer "+q.token)
		if !strings.Contains(strings.ReplaceAll(a.text, `\"`, `"`), q.want) {
			t.Errorf("%s %s as %s: %s %s", q.method, q.path, q.token, a.Status, a.text)
		}
	}
	var b strings.Builder
	d.server.Metrics(&b)
	if !strings.Contains(b.String(), `apiserver_request_total{verb="CONNECT",resource="pods/log",code="200"} 2`) || strings.Contains(b.String(), `duration_seconds_count{verb="CONNECT",resource="pods/exec"} 2`) {
		t.Error(b.String())
	}
}

func TestPatchThatDoublesIsBounded(t *testing.T) {
	d := newDoor(t).furnish()
	operations := []string{`{"op":"add","path":"/data/x","value":{"a":"aaaaaaaaaaaaaaaa"}}`}
	for range 60 {
		operations = append(operations, `{"op":"copy","from":"/data/x","path":"/data/y"}`, `{"op":"copy","from":"/data/y","path":"/data/x/b"}`, `{"op":"copy","from":"/data/y","path":"/data/x/c"}`)
	}
	a := d.ask("PATCH", "/api/v1/namespaces/default/configmaps/conf?dryRun=All", "["+strings.Join(operations, ",")+"]", "Content-Type: application/json-patch+json")
	if s := a.status(t); s != "400 BadRequest: the patch makes the object larger than 3145728 bytes" {
		t.Error(s)
	}
}
