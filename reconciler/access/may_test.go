package access

import "testing"

func TestWhatARoleMayDo(t *testing.T) {
	const yes, no = true, false
	for _, x := range []struct {
		what        string
		a           Attributes
		view, known bool // known: a user without a role
	}{
		{"list pods", Attributes{Verb: "list", Resource: "pods"}, yes, no},
		{"watch deployments", Attributes{Verb: "watch", Group: "apps", Resource: "deployments", Namespace: "a"}, yes, no},
		{"get a node", Attributes{Verb: "get", Resource: "nodes", Name: "n"}, yes, no},
		{"get a ConfigMap", Attributes{Verb: "get", Resource: "configmaps", Namespace: "a", Name: "c"}, yes, no},
		{"list revisions", Attributes{Verb: "list", Group: "pawl.dev", Resource: "revisions"}, yes, no},
		{"read a log", Attributes{Verb: "get", Resource: "pods", Subresource: "log", Namespace: "a", Name: "p"}, yes, no},
		{"read a scale", Attributes{Verb: "get", Group: "apps", Resource: "deployments", Subresource: "scale"}, yes, no},
		{"get a secret", Attributes{Verb: "get", Resource: "secrets", Namespace: "a", Name: "s"}, no, no},
		{"list secrets", Attributes{Verb: "list", Resource: "secrets"}, no, no},
		{"watch Secrets", Attributes{Verb: "watch", Resource: "Secrets"}, no, no},
		{"list everything", Attributes{Verb: "list", Resource: "*"}, no, no},
		{"any verb", Attributes{Verb: "*", Resource: "pods"}, no, no},
		{"exec by WebSocket", Attributes{Verb: "get", Resource: "pods", Subresource: "exec"}, no, no},
		{"exec by SPDY", Attributes{Verb: "create", Resource: "pods", Subresource: "exec"}, no, no},
		{"attach", Attributes{Verb: "get", Resource: "pods", Subresource: "attach"}, no, no},
		{"portforward", Attributes{Verb: "get", Resource: "pods", Subresource: "portforward"}, no, no},
		{"a node's proxy", Attributes{Verb: "get", Resource: "nodes", Subresource: "proxy"}, no, no},
		{"delete a pod", Attributes{Verb: "delete", Resource: "pods", Namespace: "a", Name: "p"}, no, no},
		{"delete all", Attributes{Verb: "deletecollection", Resource: "pods"}, no, no},
		{"create", Attributes{Verb: "create", Resource: "pods"}, no, no},
		{"patch", Attributes{Verb: "patch", Group: "apps", Resource: "deployments"}, no, no},
		{"update a status", Attributes{Verb: "update", Resource: "pods", Subresource: "status"}, no, no},
		{"ask what it may do", Attributes{Verb: "create", Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"}, yes, yes},
		{"list what it may do", Attributes{Verb: "create", Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"}, yes, yes},
		{"ask who it is", Attributes{Verb: "create", Group: "authentication.k8s.io", Resource: "selfsubjectreviews"}, yes, yes},
		{"ask what others may do", Attributes{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"}, no, no},
		{"ask with a false group", Attributes{Verb: "create", Group: "", Resource: "selfsubjectreviews"}, no, no},
		{"the version", Attributes{Verb: "get", Path: "/version"}, yes, yes},
		{"discovery", Attributes{Verb: "get", Path: "/apis/apps/v1"}, yes, yes},
		{"discovery with a slash", Attributes{Verb: "get", Path: "/api/"}, yes, yes},
		{"OpenAPI", Attributes{Verb: "get", Path: "/openapi/v3"}, yes, yes},
		{"livez", Attributes{Verb: "head", Path: "/livez"}, yes, yes},
		{"one check", Attributes{Verb: "get", Path: "/readyz/store"}, yes, yes},
		{"post to discovery", Attributes{Verb: "post", Path: "/apis"}, no, no},
		{"metrics", Attributes{Verb: "get", Path: "/metrics"}, no, no},
		{"pprof", Attributes{Verb: "get", Path: "/debug/pprof/heap"}, no, no},
		{"webhook", Attributes{Verb: "post", Path: "/webhook"}, no, no},
		{"a way around", Attributes{Verb: "get", Path: "/api/../debug/pprof/heap"}, no, no},
		{"doubled slashes", Attributes{Verb: "get", Path: "/api//../metrics"}, no, no},
		{"a longer word", Attributes{Verb: "get", Path: "/apiserver"}, no, no},
		{"the root", Attributes{Verb: "get", Path: "/"}, no, no},
		{"nothing", Attributes{}, no, no},
	} {
		for role, want := range map[Role]bool{Admin: yes, View: x.view, "": x.known, "root": x.known} {
			got, why := newUser("ada", role).May(x.a)
			if got != want {
				t.Errorf("role %q, %s: %v (%s)", role, x.what, got, why)
			}
			if got == (why != "") {
				t.Errorf("role %q, %s: allowed is %v and the reason %q", role, x.what, got, why)
			}
		}
	}
}

func TestARefusalIsWordedAsKubernetesDoes(t *testing.T) {
	u := newUser("x", View)
	for want, a := range map[string]Attributes{
		`User "x" cannot list resource "secrets" in API group "" in the namespace "default"`:          {Verb: "list", Resource: "secrets", Namespace: "default"},
		`User "x" cannot list resource "secrets" in API group "" at the cluster scope`:                {Verb: "list", Resource: "secrets"},
		`User "x" cannot create resource "pods/exec" in API group "" in the namespace "a"`:            {Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "a", Name: "p"},
		`User "x" cannot patch resource "deployments" in API group "apps" in the namespace "default"`: {Verb: "patch", Group: "apps", Resource: "deployments", Namespace: "default", Name: "web"},
		`User "x" cannot get path "/metrics"`:                                                         {Verb: "get", Path: "/metrics"},
	} {
		if _, got := u.May(a); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
