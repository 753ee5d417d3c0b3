package api

import (
	"errors"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
)

// questions are the resources that are only ever created: a caller asks what it
// may do, and who it is.
func (s *Server) questions() []*resource {
	all := []*resource{
		question("selfsubjectaccessreviews", authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"), (*request).mayI),
		question("selfsubjectrulesreviews", authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectRulesReview"), (*request).whatMayI),
		question("selfsubjectreviews", authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"), (*request).whoAmI),
	}
	if s.Review != nil {
		review := question("tokenreviews", authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), func(q *request) { q.reviewToken(s.Review) })
		all = append(all, review)
	}
	return all
}

func question(plural schema.Kind, gvk k8sschema.GroupVersionKind, create func(*request)) *resource {
	return &resource{kind: plural, gvk: gvk, verbs: []string{"create"}, proto: true, create: create}
}

// ask reads a question and answers it.
func (q *request) ask(o runtime.Object, answer func() error) {
	f, err := negotiate(q.r, offer{everyMedia, wholeOnly})
	if err == nil {
		err = q.readBody(o, q.res.gvk)
	}
	if err == nil {
		err = answer()
	}
	if err != nil {
		q.fail(err)
		return
	}
	o.GetObjectKind().SetGroupVersionKind(q.res.gvk)
	q.writeObject(q.w, q.r, http.StatusCreated, f, o)
}

func (q *request) whoAmI() {
	o := new(authenticationv1.SelfSubjectReview)
	q.ask(o, func() error {
		o.Status.UserInfo = userInfo(q.user)
		return nil
	})
}

func userInfo(u access.User) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for k, v := range u.Extra {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[k] = v
	}
	return info
}

// reviewToken answers whose token it is. The answer repeats no token.
func (q *request) reviewToken(review func(string, []string) (access.User, []string, error)) {
	o := new(authenticationv1.TokenReview)
	q.ask(o, func() error {
		if o.Spec.Token == "" {
			return apierrors.NewBadRequest("token is required for TokenReview in authentication")
		}
		user, audiences, err := review(o.Spec.Token, o.Spec.Audiences)
		o.Spec.Token, o.Status = "", authenticationv1.TokenReviewStatus{}
		switch {
		case errors.Is(err, schema.ErrUnavailable):
			return apierrors.NewServiceUnavailable("the server does not know the pods yet, try again")
		case err != nil:
			o.Status.Error = err.Error()
		default:
			o.Status.Authenticated, o.Status.User, o.Status.Audiences = true, userInfo(user), audiences
		}
		return nil
	})
}

func (q *request) mayI() {
	o := new(authorizationv1.SelfSubjectAccessReview)
	q.ask(o, func() error {
		var a access.Attributes
		switch r, p := o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes; {
		case r != nil && p == nil:
			a = access.Attributes{Verb: r.Verb, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource, Namespace: r.Namespace, Name: r.Name}
		case p != nil && r == nil:
			a = access.Attributes{Verb: p.Verb, Path: p.Path}
		case r != nil:
			return q.invalidSpec(field.Invalid(field.NewPath("spec", "nonResourceAttributes"), p, "cannot be specified in combination with resourceAttributes"))
		default:
			return q.invalidSpec(field.Invalid(field.NewPath("spec", "resourceAttributes"), r, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
		}
		o.Status.Allowed, _ = q.user.May(a)
		return nil
	})
}

func (q *request) invalidSpec(fault *field.Error) error {
	return apierrors.NewInvalid(q.res.gvk.GroupKind(), "", field.ErrorList{fault})
}

func (q *request) whatMayI() {
	o := new(authorizationv1.SelfSubjectRulesReview)
	q.ask(o, func() error {
		if o.Spec.Namespace == "" {
			return apierrors.NewBadRequest("no namespace on request")
		}
		o.Status = q.rules(o.Spec.Namespace)
		return nil
	})
}

var everything = []string{"*"}

// rules is what the caller may do in a namespace, found out by asking.
func (q *request) rules(namespace string) authorizationv1.SubjectRulesReviewStatus {
	if all, _ := q.user.May(access.Attributes{Verb: "*", Group: "*", Resource: "*"}); all {
		return authorizationv1.SubjectRulesReviewStatus{
			ResourceRules:    []authorizationv1.ResourceRule{{Verbs: everything, APIGroups: everything, Resources: everything}},
			NonResourceRules: []authorizationv1.NonResourceRule{{Verbs: everything, NonResourceURLs: everything}},
		}
	}
	status := authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	for _, r := range q.discovery.rows {
		in := namespace
		if !r.namespaced {
			in = metav1.NamespaceAll
		}
		q.addRule(&status, r, nil, in)
		for _, s := range r.sortedSubresources() {
			q.addRule(&status, r, s, in)
		}
	}
	var paths []string
	for _, p := range askablePaths {
		if ok, _ := q.user.May(access.Attributes{Verb: "get", Path: p}); ok {
			paths = append(paths, p)
		}
	}
	if paths != nil {
		status.NonResourceRules = append(status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: []string{"get"}, NonResourceURLs: paths})
	}
	return status
}

var askablePaths = []string{"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/metrics", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"}

// addRule adds what the caller may do with a resource, if it may do anything.
func (q *request) addRule(status *authorizationv1.SubjectRulesReviewStatus, r *resource, s *subresource, namespace string) {
	a := access.Attributes{Group: r.gvk.Group, Resource: r.plural(), Namespace: namespace}
	verbs, name := r.verbs, r.plural()
	if s != nil {
		a.Subresource, verbs, name = s.name, s.verbs, name+"/"+s.name
	}
	var may []string
	for _, a.Verb = range verbs {
		if ok, _ := q.user.May(a); ok {
			may = append(may, a.Verb)
		}
	}
	if may != nil {
		status.ResourceRules = append(status.ResourceRules, authorizationv1.ResourceRule{Verbs: may, APIGroups: []string{r.gvk.Group}, Resources: []string{name}})
	}
}
