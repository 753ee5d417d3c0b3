package api

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"

	discoveryv2 "k8s.io/api/apidiscovery/v2"
	discoveryv2beta1 "k8s.io/api/apidiscovery/v2beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
)

// discovery is what there is to ask for, by path, one document for each and two
// that hold everything. It never changes while the server runs.
type discovery struct {
	rows       []*resource
	plain      map[string]runtime.Object            // of every path
	aggregated map[string]map[string]runtime.Object // of /api and /apis, by version of the form
}

// clientCIDRs says that every client reaches the server by the address it used.
var clientCIDRs = []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: ""}}

func newDiscovery(rows []*resource) *discovery {
	d := &discovery{rows: rows, plain: map[string]runtime.Object{}, aggregated: map[string]map[string]runtime.Object{}}
	core, named := byGroup(rows)
	d.plain["/api"] = &metav1.APIVersions{
		TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}, ServerAddressByClientCIDRs: clientCIDRs,
	}
	groups := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, g := range named {
		group := g.discovered()
		groups.Groups = append(groups.Groups, group)
		group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		d.plain["/apis/"+g.Group] = &group
		d.plain["/apis/"+g.Group+"/"+g.Version] = g.plain()
	}
	d.plain["/apis"] = groups
	for _, g := range core {
		d.plain["/api/"+g.Version] = g.plain()
	}
	d.aggregated["/api"] = aggregate(core)
	d.aggregated["/apis"] = aggregate(named)
	return d
}

func (d *discovery) has(path string) bool { return d.plain[clean(path)] != nil }

func clean(path string) string { return strings.TrimSuffix(path, "/") }

// A served group version and its resources, sorted by name.
type served struct {
	k8sschema.GroupVersion
	rows []*resource
}

// byGroup sorts the rows: apps first of the named groups, as it is in Kubernetes,
// and the rest by name. A group has one version.
func byGroup(rows []*resource) (core, named []served) {
	groups := map[k8sschema.GroupVersion][]*resource{}
	for _, r := range rows {
		gv := r.gvk.GroupVersion()
		groups[gv] = append(groups[gv], r)
	}
	for gv, rows := range groups {
		slices.SortFunc(rows, func(a, b *resource) int { return strings.Compare(a.plural(), b.plural()) })
		if gv.Group == "" {
			core = append(core, served{gv, rows})
		} else {
			named = append(named, served{gv, rows})
		}
	}
	slices.SortFunc(named, func(a, b served) int { return strings.Compare(rank(a.Group), rank(b.Group)) })
	return core, named
}

func rank(group string) string {
	if group == "apps" {
		return ""
	}
	return group
}

func (g served) discovered() metav1.APIGroup {
	v := metav1.GroupVersionForDiscovery{GroupVersion: g.String(), Version: g.Version}
	return metav1.APIGroup{Name: g.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v}
}

// plain is the document of one group version.
func (g served) plain() *metav1.APIResourceList {
	l := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: g.String()}
	for _, r := range g.rows {
		l.APIResources = append(l.APIResources, metav1.APIResource{
			Name: r.plural(), SingularName: r.singular(), Namespaced: r.namespaced, Kind: r.gvk.Kind,
			Verbs: r.verbs, ShortNames: r.shortNames, Categories: r.categories,
		})
		for _, s := range r.sortedSubresources() {
			a := metav1.APIResource{Name: r.plural() + "/" + s.name, Namespaced: r.namespaced, Kind: s.gvk.Kind, Verbs: s.verbs}
			if s.gvk.GroupVersion() != g.GroupVersion {
				a.Group, a.Version = s.gvk.Group, s.gvk.Version
			}
			l.APIResources = append(l.APIResources, a)
		}
	}
	return l
}

// aggregate is the document of many groups, in each version of that form.
func aggregate(groups []served) map[string]runtime.Object {
	v2 := &discoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: string(discoveryShape), APIVersion: discoveryGroup + "/v2"}}
	beta := &discoveryv2beta1.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: string(discoveryShape), APIVersion: discoveryGroup + "/v2beta1"}}
	for _, g := range groups {
		v := discoveryv2.APIVersionDiscovery{Version: g.Version, Freshness: discoveryv2.DiscoveryFreshnessCurrent}
		b := discoveryv2beta1.APIVersionDiscovery{Version: g.Version, Freshness: discoveryv2beta1.DiscoveryFreshnessCurrent}
		for _, r := range g.rows {
			x := r.discovered()
			v.Resources = append(v.Resources, x)
			b.Resources = append(b.Resources, older(x))
		}
		meta := metav1.ObjectMeta{Name: g.Group}
		v2.Items = append(v2.Items, discoveryv2.APIGroupDiscovery{ObjectMeta: meta, Versions: []discoveryv2.APIVersionDiscovery{v}})
		beta.Items = append(beta.Items, discoveryv2beta1.APIGroupDiscovery{ObjectMeta: meta, Versions: []discoveryv2beta1.APIVersionDiscovery{b}})
	}
	return map[string]runtime.Object{"v2": v2, "v2beta1": beta}
}

func (r *resource) discovered() discoveryv2.APIResourceDiscovery {
	scope := discoveryv2.ScopeCluster
	if r.namespaced {
		scope = discoveryv2.ScopeNamespace
	}
	kind := metav1.GroupVersionKind(r.gvk)
	x := discoveryv2.APIResourceDiscovery{
		Resource: r.plural(), ResponseKind: &kind, Scope: scope, SingularResource: r.singular(),
		Verbs: r.verbs, ShortNames: r.shortNames, Categories: r.categories,
	}
	for _, s := range r.sortedSubresources() {
		kind := metav1.GroupVersionKind(s.gvk)
		x.Subresources = append(x.Subresources, discoveryv2.APISubresourceDiscovery{Subresource: s.name, ResponseKind: &kind, Verbs: s.verbs})
	}
	return x
}

// older is the same in the words of v2beta1.
func older(x discoveryv2.APIResourceDiscovery) discoveryv2beta1.APIResourceDiscovery {
	o := discoveryv2beta1.APIResourceDiscovery{
		Resource: x.Resource, ResponseKind: x.ResponseKind, Scope: discoveryv2beta1.ResourceScope(x.Scope),
		SingularResource: x.SingularResource, Verbs: x.Verbs, ShortNames: x.ShortNames, Categories: x.Categories,
	}
	for _, s := range x.Subresources {
		o.Subresources = append(o.Subresources, discoveryv2beta1.APISubresourceDiscovery{
			Subresource: s.Subresource, ResponseKind: s.ResponseKind, Verbs: s.Verbs,
		})
	}
	return o
}

// serveDiscovery answers what there is to ask for below a path.
func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	path := clean(r.URL.Path)
	aggregated := s.discovery.aggregated[path]
	f, err := negotiate(r, offer{everyMedia, func(sh shape, group, version string) bool {
		return sh == wholeShape || sh == discoveryShape && group == discoveryGroup && aggregated[version] != nil
	}})
	if err != nil {
		s.fail(w, r, err, k8sschema.GroupResource{}, "")
		return
	}
	o := s.discovery.plain[path]
	if f.shape == discoveryShape {
		o = aggregated[f.version]
	}
	body, err := encode(o, f.media)
	if err != nil {
		s.fail(w, r, err, k8sschema.GroupResource{}, "")
		return
	}
	w.Header().Set("Vary", "Accept")
	if f.shape == discoveryShape && unchanged(w, r, body) {
		return
	}
	s.writeBody(w, r, http.StatusOK, f, body)
}

// unchanged answers 304 to a caller who has the same document already.
func unchanged(w http.ResponseWriter, r *http.Request, body []byte) bool {
	sum := sha256.Sum256(body)
	tag := `"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"`
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") != tag {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}
