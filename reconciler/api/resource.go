package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/reconciler/api/table"
	"github.com/pawl-project/pawl/schema"
)

// A resource is all that the front door knows of one kind of thing.
type resource struct {
	kind       schema.Kind
	gvk        k8sschema.GroupVersionKind
	namespaced bool
	manifest   bool // stands in the repository, and is changed there
	shortNames []string
	categories []string
	verbs      []string

	empty        func() schema.Object // nil: there are no objects, only questions
	fields       fieldTable
	columns      table.Columns
	proto        bool                                       // its Go type has protobuf
	open         func(schema.Object) (schema.Object, error) // what is done to each object on its way out; nil: nothing
	create       func(*request)                             // answers a question; nil: it is an ordinary resource
	read         func(*request)                             // answers get and list of what is not in the cache; nil: it is
	subresources map[string]*subresource
}

// A subresource is something of one object that has a path of its own.
type subresource struct {
	name    string
	gvk     k8sschema.GroupVersionKind
	verbs   []string
	streams bool // lasts as long as the caller likes
	serve   func(*request)
}

// What a kind has beyond what schema says of it.
var extras = map[schema.Kind]struct {
	short      []string
	categories []string
	scale      bool
}{
	schema.Namespaces:             {short: []string{"ns"}},
	schema.Nodes:                  {short: []string{"no"}},
	schema.ConfigMaps:             {short: []string{"cm"}},
	schema.Services:               {short: []string{"svc"}, categories: []string{"all"}},
	schema.Pods:                   {short: []string{"po"}, categories: []string{"all"}},
	schema.ReplicationControllers: {short: []string{"rc"}, categories: []string{"all"}, scale: true},
	schema.ReplicaSets:            {short: []string{"rs"}, categories: []string{"all"}, scale: true},
	schema.Deployments:            {short: []string{"deploy"}, categories: []string{"all"}, scale: true},
	schema.Events:                 {short: []string{"ev"}},
	schema.Revisions:              {short: []string{"rev"}},
	schema.PriorityClasses:        {short: []string{"pc"}},
	schema.ServiceAccounts:        {short: []string{"sa"}},
}

// rows is the table: every kind that schema knows, and the questions.
func (s *Server) rows() []*resource {
	var out []*resource
	for _, info := range schema.Kinds() {
		out = append(out, s.row(info))
	}
	return slices.Concat(out, s.questions(), s.usageRows(), s.leaseRows())
}

func (s *Server) row(info schema.KindInfo) *resource {
	more := extras[info.Kind]
	r := &resource{
		kind: info.Kind, gvk: info.GVK, namespaced: info.Namespaced, manifest: info.Manifest, empty: info.New,
		shortNames: more.short, categories: more.categories, verbs: []string{"get", "list", "watch"},
		fields: fieldsFor(info.Kind), columns: table.For(info.Kind), subresources: map[string]*subresource{},
	}
	_, r.proto = info.New().(protoMessage)
	if hasStatus(info.New()) {
		r.add(&subresource{name: "status", gvk: info.GVK, verbs: []string{"get"}, serve: (*request).status})
	}
	if more.scale {
		r.add(&subresource{name: "scale", gvk: scaleKind, verbs: []string{"get"}, serve: (*request).scale})
	}
	switch info.Kind {
	case schema.Pods:
		s.addPod(r)
	case schema.Secrets:
		r.open = s.openSecret
	}
	for _, route := range s.Extra {
		if route.Kind == info.Kind && route.Subresource != "" {
			r.add(&subresource{name: route.Subresource, gvk: info.GVK, verbs: []string{"get"}, serve: func(q *request) { q.extra(route) }})
		}
	}
	return r
}

// addPod gives pods what only they have: deletion, and what flows.
func (s *Server) addPod(r *resource) {
	if s.RestartPod != nil {
		r.verbs = []string{"delete", "deletecollection", "get", "list", "watch"}
	}
	if s.Streams == nil {
		return
	}
	r.add(&subresource{name: "log", gvk: r.gvk, verbs: []string{"get"}, streams: true, serve: func(q *request) { q.stream(s.Streams.Log, http.MethodGet) }})
	for name, x := range map[string]struct {
		kind  string
		serve func(http.ResponseWriter, *http.Request, schema.PodKey)
	}{
		"exec":        {"PodExecOptions", s.Streams.Exec},
		"attach":      {"PodAttachOptions", s.Streams.Attach},
		"portforward": {"PodPortForwardOptions", s.Streams.PortForward},
		"archive":     {"PodArchiveOptions", s.Streams.Archive}, // Pawl's own: what its cp speaks
	} {
		r.add(&subresource{
			name: name, gvk: corev1.SchemeGroupVersion.WithKind(x.kind), verbs: []string{"create", "get"}, streams: true,
			serve: func(q *request) { q.stream(x.serve, http.MethodGet, http.MethodPost) },
		})
	}
}

func (r *resource) add(s *subresource) { r.subresources[s.name] = s }

// openSecret is a Secret as its readers see it.
func (s *Server) openSecret(o schema.Object) (schema.Object, error) {
	sealed := o.(*corev1.Secret)
	opened, err := s.OpenSecret(sealed)
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s cannot be opened: %w", sealed.Namespace, sealed.Name, err)
	}
	if opened == sealed {
		opened = sealed.DeepCopy()
	}
	opened.TypeMeta, opened.ResourceVersion = sealed.TypeMeta, sealed.ResourceVersion
	opened.Annotations = withoutSeal(opened.Annotations)
	return opened, nil
}

// object is an item as callers see it.
func (r *resource) object(i *cache.Item) (schema.Object, error) {
	if r.open == nil {
		return i.Object(), nil
	}
	return r.open(i.Object())
}

// json is an item in JSON, without a newline. The bytes are shared.
func (r *resource) json(i *cache.Item) ([]byte, error) {
	if r.open == nil {
		return i.JSON(), nil
	}
	o, err := r.open(i.Object())
	if err != nil {
		return nil, err
	}
	return json.Marshal(o)
}

// message is an item's protobuf, without an envelope. The bytes are shared.
func (r *resource) message(i *cache.Item) ([]byte, error) {
	if r.open == nil {
		return i.Proto(), nil
	}
	o, err := r.open(i.Object())
	if err != nil {
		return nil, err
	}
	return o.(protoMessage).Marshal()
}

// virtual resources stand for questions; there is nothing of them in the cache.
func (r *resource) virtual() bool { return r.empty == nil && r.read == nil }

func (r *resource) plural() string { return string(r.kind) }

func (r *resource) singular() string { return strings.ToLower(r.gvk.Kind) }

func (r *resource) groupResource() k8sschema.GroupResource {
	return k8sschema.GroupResource{Group: r.gvk.Group, Resource: r.plural()}
}

func (r *resource) gvr() k8sschema.GroupVersionResource {
	return k8sschema.GroupVersionResource{Group: r.gvk.Group, Version: r.gvk.Version, Resource: r.plural()}
}

func (t target) gvr() k8sschema.GroupVersionResource {
	return k8sschema.GroupVersionResource{Group: t.group, Version: t.version, Resource: t.resource}
}

func (t target) groupResource() k8sschema.GroupResource {
	return k8sschema.GroupResource{Group: t.group, Resource: t.resource}
}

func (r *resource) apiVersion() string { return r.gvk.GroupVersion().String() }

func (r *resource) listMeta() metav1.TypeMeta {
	return metav1.TypeMeta{Kind: r.gvk.Kind + "List", APIVersion: r.apiVersion()}
}

func (r *resource) media() []media {
	if r.proto {
		return everyMedia
	}
	return []media{jsonMedia, yamlMedia}
}

func (r *resource) metricName(subresource string) string {
	if subresource == "" {
		return r.plural()
	}
	return r.plural() + "/" + subresource
}

func (r *resource) notSupported(verb string) error {
	return apierrors.NewMethodNotSupported(r.groupResource(), verb)
}

// sortedSubresources are in the order in which discovery names them.
func (r *resource) sortedSubresources() []*subresource {
	var out []*subresource
	for _, s := range r.subresources {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *subresource) int { return strings.Compare(a.name, b.name) })
	return out
}
