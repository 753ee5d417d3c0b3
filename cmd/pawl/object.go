package main

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/kubectl/pkg/scheme"
)

// A target is the one object that a verb of Pawl's own is about.
type target struct {
	Mapping   *meta.RESTMapping
	Namespace string // "" where its kind stands in none
	Name      string
}

// target reads TYPE/NAME or TYPE NAME, with every spelling of a type that get knows.
func (c *cluster) target(args []string) (target, error) {
	kind, name := args[0], ""
	switch {
	case len(args) == 2:
		name = args[1]
	default:
		kind, name, _ = strings.Cut(args[0], "/")
	}
	if kind == "" || name == "" || strings.Contains(name, "/") {
		return target{}, fmt.Errorf("name one object, as TYPE/NAME or TYPE NAME, such as deployment/web")
	}
	// They become parts of paths: with ".." another object would be asked for.
	if bad := content.IsPathSegmentName(name); len(bad) > 0 {
		return target{}, fmt.Errorf("invalid resource name %q: %v", name, bad)
	}
	if bad := content.IsPathSegmentName(c.namespace()); len(bad) > 0 {
		return target{}, fmt.Errorf("invalid namespace %q: %v", c.namespace(), bad)
	}
	mapper, err := c.ToRESTMapper()
	if err != nil {
		return target{}, err
	}
	mapping, err := mappingFor(mapper, kind)
	if meta.IsNoMatchError(err) {
		return target{}, fmt.Errorf("the server doesn't have a resource type %q", kind)
	}
	if err != nil {
		return target{}, err
	}
	t := target{Mapping: mapping, Name: name}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		t.Namespace = c.namespace()
	}
	return t, nil
}

// mappingFor finds a type by resource.version.group, resource.group, plural,
// singular, short name or kind.
func mappingFor(mapper meta.RESTMapper, arg string) (*meta.RESTMapping, error) {
	full, partial := k8sschema.ParseResourceArg(strings.ToLower(arg))
	var gvk k8sschema.GroupVersionKind
	var err error
	if full != nil {
		gvk, err = mapper.KindFor(*full)
	}
	if full == nil || err != nil {
		gvk, err = mapper.KindFor(partial.WithVersion(""))
	}
	if err != nil {
		return nil, err
	}
	return mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
}

// path is where the server has the object.
func (t target) path() string {
	return resourcePath(t.Mapping.Resource, t.Namespace) + "/" + t.Name
}

func resourcePath(r k8sschema.GroupVersionResource, namespace string) string {
	path := "/apis/" + r.Group
	if r.Group == "" {
		path = "/api"
	}
	path += "/" + r.Version
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	return path + "/" + r.Resource
}

// get fetches the object: as its Go type where there is one, else what all
// objects have in common.
func (t target) get(ctx context.Context, client *rest.RESTClient) (metav1.Object, error) {
	var into runtime.Object = new(metav1.PartialObjectMetadata)
	if typed, err := scheme.Scheme.New(t.Mapping.GroupVersionKind); err == nil {
		into = typed
	}
	body, err := fetch(ctx, client.Get().AbsPath(t.path()))
	if err != nil {
		return nil, err
	}
	if err := decode(body, into); err != nil {
		return nil, fmt.Errorf("%s: %w", t.path(), err)
	}
	return meta.Accessor(into)
}

// fetch carries a request out: the body, or the server's own words why not.
func fetch(ctx context.Context, r *rest.Request) ([]byte, error) {
	result := r.Do(ctx)
	if err := result.Error(); err != nil {
		return nil, err
	}
	return result.Raw()
}
