package api

import (
	"errors"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
)

// A request is one for a resource, understood and allowed.
type request struct {
	*Server
	w    *recorder
	r    *http.Request
	res  *resource
	t    target
	verb string // in Kubernetes' terms: get, list, watch, create …
	user access.User
}

func objectKey(kind schema.Kind, namespace, name string) schema.ObjectKey {
	return schema.ObjectKey{Kind: kind, Namespace: namespace, Name: name}
}

// serveResource answers a request for a resource, if there is such a one and
// the caller may.
func (s *Server) serveResource(w *recorder, r *http.Request, t target) {
	res, sub := s.lookup(t)
	if res == nil {
		s.fail(w, r, noSuchResource(), t.groupResource(), "")
		return
	}
	q := &request{Server: s, w: w, r: r, res: res, t: t}
	q.verb = verbOf(r, t)
	w.label(metricVerb(q.verb, sub), res.metricName(t.subresource))
	if err := q.allowed(); err != nil {
		q.fail(err)
		return
	}
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		w.WriteHeader(http.StatusOK)
		return
	}
	if !res.virtual() && !s.Ready() {
		q.fail(unavailable("the server is currently unable to handle the request: it is still reading the state of the cluster"))
		return
	}
	if sub != nil {
		sub.serve(q)
		return
	}
	q.serve()
}

// lookup finds the row of a target, and its subresource if it names one. A
// namespaced resource has a namespace where it has a name, and a cluster-scoped
// one never has.
func (s *Server) lookup(t target) (*resource, *subresource) {
	res := s.resources[t.gvr()]
	if res == nil || (t.namespace != "" && !res.namespaced) || (t.name != "" && res.namespaced && t.namespace == "") {
		return nil, nil
	}
	if t.subresource == "" {
		return res, nil
	}
	sub, ok := res.subresources[t.subresource]
	if !ok {
		return nil, nil
	}
	return res, sub
}

// verbOf is what a request wants, in Kubernetes' terms.
func verbOf(r *http.Request, t target) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		switch {
		case t.legacyWatch || (t.name == "" && wantsWatch(r)):
			return "watch"
		case t.name == "":
			return "list"
		}
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if t.name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	return ""
}

// wantsWatch reads the parameter as Kubernetes reads every flag: clients write
// False as well.
func wantsWatch(r *http.Request) bool {
	v, there := r.URL.Query()["watch"]
	return there && v[0] != "0" && !strings.EqualFold(v[0], "false")
}

// allowed says why the caller may not have what it asks for.
func (q *request) allowed() error {
	user, ok := access.UserFrom(q.r.Context())
	if !ok {
		return apierrors.NewUnauthorized("Unauthorized")
	}
	q.user = user
	allowed, reason := user.May(access.Attributes{
		Verb: q.verb, Group: q.t.group, Resource: q.t.resource, Subresource: q.t.subresource, Namespace: q.t.namespace, Name: q.t.name,
	})
	if !allowed {
		return apierrors.NewForbidden(q.t.groupResource(), q.t.name, errors.New(reason))
	}
	return nil
}

// serve answers a request for the resource itself.
func (q *request) serve() {
	if q.res.create != nil { // a question in the form of an object
		if q.verb != "create" {
			q.fail(q.res.notSupported(q.verb))
			return
		}
		q.res.create(q)
		return
	}
	if q.res.read != nil {
		if q.verb != "get" && q.verb != "list" {
			q.fail(q.res.notSupported(q.verb))
			return
		}
		q.res.read(q)
		return
	}
	if !q.placed() {
		q.fail(methodNotAllowed())
		return
	}
	switch q.verb {
	case "get":
		q.get()
	case "list":
		q.list()
	case "watch":
		q.watch()
	case "delete":
		q.delete()
	case "deletecollection":
		q.deleteCollection()
	case "create", "update", "patch":
		q.write()
	default:
		q.fail(q.res.notSupported(q.r.Method))
	}
}

// placed says whether a path of this form has the verb: as in Kubernetes an
// object is made in its namespace and changed by its name, and those of one
// namespace at a time are deleted.
func (q *request) placed() bool {
	whole := !q.res.namespaced || q.t.namespace != ""
	switch q.verb {
	case "create":
		return q.t.name == "" && whole
	case "update", "patch":
		return q.t.name != "" && !q.t.legacyWatch
	case "deletecollection", "delete":
		return whole && !q.t.legacyWatch
	}
	return true
}

func (q *request) fail(err error) {
	q.Server.fail(q.w, q.r, err, q.t.groupResource(), q.t.name)
}

func (q *request) key() schema.ObjectKey {
	return objectKey(q.res.kind, q.t.namespace, q.t.name)
}
