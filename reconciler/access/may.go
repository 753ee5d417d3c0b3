package access

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Attributes are what a request wants, in Kubernetes' terms. A request for a
// resource has Resource set and no Path; any other has Path and no Resource.
type Attributes struct {
	Verb        string // get, list, watch, create, update, patch, delete, deletecollection; for a Path the HTTP method in small letters
	Group       string // of the resource, such as apps; "" is the core group
	Resource    string // plural, such as pods
	Subresource string // such as log; "" is the object itself
	Namespace   string // "" is all namespaces, or none for a cluster-scoped resource
	Name        string // "" is all objects
	Path        string // of a request that is not for a resource, such as /version
}

// May says whether the user may do what a asks for and, when not, why: the
// sentence that Kubernetes puts behind "is forbidden: ". Whatever is not known
// to be allowed is refused, so that a new resource verb or path is closed to
// viewers until somebody has thought about it.
func (u User) May(a Attributes) (allowed bool, reason string) {
	if u.Role == Admin || u.may(a) {
		return true, ""
	}
	return false, u.forbidden(a)
}

func (u User) may(a Attributes) bool {
	if a.Resource == "" {
		return discovers(a)
	}
	if asksOfItself(a) {
		return true
	}
	return u.Role == View && reads(a)
}

// reads says whether a is the reading of what viewers see. Exec and attach are a
// get in Kubernetes' terms, so subresources are named one by one. A resource of
// "*" includes the secrets.
func reads(a Attributes) bool {
	return slices.Contains([]string{"get", "list", "watch"}, a.Verb) &&
		slices.Contains([]string{"", "log", "status", "scale"}, a.Subresource) &&
		a.Resource != "*" && !strings.EqualFold(a.Resource, "secrets")
}

// asksOfItself says whether a asks what its own user is called and may do. As in
// Kubernetes everybody who is known may.
func asksOfItself(a Attributes) bool {
	if a.Verb != "create" || a.Subresource != "" {
		return false
	}
	switch a.Group {
	case "authorization.k8s.io":
		return a.Resource == "selfsubjectaccessreviews" || a.Resource == "selfsubjectrulesreviews"
	case "authentication.k8s.io":
		return a.Resource == "selfsubjectreviews"
	}
	return false
}

// discoveryPaths are open to everybody who is known, with all that is below them.
var discoveryPaths = []string{"/version", "/api", "/apis", "/openapi", "/healthz", "/livez", "/readyz"}

// discovers says whether a is the reading of what there is to ask for. A path
// with dots or doubled slashes may be understood otherwise behind this check.
func discovers(a Attributes) bool {
	p := strings.TrimSuffix(a.Path, "/")
	if a.Verb != "get" && a.Verb != "head" || path.Clean(p) != p {
		return false
	}
	return slices.ContainsFunc(discoveryPaths, func(open string) bool {
		return p == open || strings.HasPrefix(p, open+"/")
	})
}

// forbidden is Kubernetes' sentence for a refusal.
func (u User) forbidden(a Attributes) string {
	if a.Resource == "" {
		return fmt.Sprintf("User %q cannot %s path %q", u.Name, a.Verb, a.Path)
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	where := "at the cluster scope"
	if a.Namespace != "" {
		where = fmt.Sprintf("in the namespace %q", a.Namespace)
	}
	return fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", u.Name, a.Verb, resource, a.Group, where)
}
