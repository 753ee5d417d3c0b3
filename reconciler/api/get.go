package api

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/reconciler/api/table"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// oneShapes are the shapes in which one object is answered.
func oneShapes(s shape, group, version string) bool {
	return s == wholeShape || (s == tableShape || s == partialShape) && metaVersion(group, version)
}

// metaVersion says whether the meta group has a version.
func metaVersion(group, version string) bool {
	return group == metaGroup && (version == "v1" || version == "v1beta1")
}

// withoutSeal is annotations without what only the store is to know.
func withoutSeal(a map[string]string) map[string]string {
	if _, sealed := a[kv.AnnotationSealed]; !sealed {
		return a
	}
	if len(a) == 1 {
		return nil
	}
	c := maps.Clone(a)
	delete(c, kv.AnnotationSealed)
	return c
}

// get answers with one object.
func (q *request) get() {
	f, err := negotiate(q.r, offer{q.res.media(), oneShapes})
	if err != nil {
		q.fail(err)
		return
	}
	item, err := q.item()
	if err != nil {
		q.fail(err)
		return
	}
	if v := q.r.URL.Query().Get("resourceVersion"); v != "" && v != "0" {
		if err := q.notOlderThan(v); err != nil {
			q.fail(err)
			return
		}
		if item, err = q.item(); err != nil {
			q.fail(err)
			return
		}
	}
	q.answer(http.StatusOK, f, item)
}

// item is the object that the request names.
func (q *request) item() (*cache.Item, error) {
	if item, ok := q.Cache.Get(q.key()); ok {
		return item, nil
	}
	if q.res.kind == schema.Revisions {
		return q.abbreviated()
	}
	return nil, apierrors.NewNotFound(q.t.groupResource(), q.t.name)
}

// abbreviated is the one revision whose name, a commit's hash, begins as the
// request says, as Git takes hashes.
func (q *request) abbreviated() (*cache.Item, error) {
	const least = 4 // digits, as in Git
	var found *cache.Item
	if len(q.t.name) >= least {
		revisions, _ := q.Cache.List(schema.Revisions, "")
		for _, i := range revisions {
			if !strings.HasPrefix(i.Key.Name, q.t.name) {
				continue
			}
			if found != nil {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("%s %q is short for several, such as %s and %s", q.t.groupResource(), q.t.name, found.Key.Name, i.Key.Name))
			}
			found = i
		}
	}
	if found == nil {
		return nil, apierrors.NewNotFound(q.t.groupResource(), q.t.name)
	}
	return found, nil
}

// answer writes one object in the form that was asked for.
func (q *request) answer(code int, f form, item *cache.Item) {
	body, err := q.one(f, item)
	if err != nil {
		q.fail(err)
		return
	}
	q.writeBody(q.w, q.r, code, f, body)
}

// one is an object encoded in a form.
func (q *request) one(f form, item *cache.Item) ([]byte, error) {
	switch {
	case f.shape == partialShape:
		return encode(partialOf(item.Object(), f.version), f.media)
	case f.shape == tableShape:
		var b bytes.Buffer
		meta := metav1.ListMeta{ResourceVersion: item.Object().GetResourceVersion()}
		if err := q.writeTable(&b, f, meta, []*cache.Item{item}); err != nil {
			return nil, err
		}
		return fromJSON(b.Bytes(), f.media)
	case f.media == protoMedia:
		raw, err := q.res.message(item)
		if err != nil {
			return nil, err
		}
		return append(envelope(nil, q.res.apiVersion(), q.res.gvk.Kind, len(raw)), raw...), nil
	}
	body, err := q.res.json(item)
	if err != nil {
		return nil, err
	}
	return fromJSON(body, f.media)
}

// status answers GET of the status subresource, which is the whole object.
func (q *request) status() {
	if q.verb != "get" {
		q.fail(q.refusal())
		return
	}
	q.get()
}

// extra answers a route that somebody added.
func (q *request) extra(route Route) {
	if q.verb != "get" {
		q.fail(q.res.notSupported(q.verb))
		return
	}
	if _, err := q.item(); err != nil {
		q.fail(err)
		return
	}
	route.Handler(q.w, q.r, q.key())
}

var scaleKind = autoscalingv1.SchemeGroupVersion.WithKind("Scale")

// scale answers GET of the scale subresource.
func (q *request) scale() {
	if q.verb != "get" {
		q.fail(q.refusal())
		return
	}
	f, err := negotiate(q.r, offer{everyMedia, oneShapes})
	if err != nil {
		q.fail(err)
		return
	}
	item, err := q.item()
	if err != nil {
		q.fail(err)
		return
	}
	scale, err := scaleOf(item.Object())
	if err != nil {
		q.fail(err)
		return
	}
	res := *q.res
	res.columns = table.Scale()
	q.res = &res
	q.answerObject(http.StatusOK, f, scale)
}

func scaleOf(o metav1.Object) (*autoscalingv1.Scale, error) {
	want, have, selector, ok := replicasOf(o)
	if !ok {
		return nil, fmt.Errorf("%T has no replicas", o)
	}
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: scaleKind.Kind, APIVersion: scaleKind.GroupVersion().String()},
		ObjectMeta: metav1.ObjectMeta{
			Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(),
			ResourceVersion: o.GetResourceVersion(), CreationTimestamp: o.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: want},
		Status: autoscalingv1.ScaleStatus{Replicas: have, Selector: selector},
	}, nil
}
