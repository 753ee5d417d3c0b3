package api

import (
	"cmp"
	"encoding/json"
	"net/http"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pawl-project/pawl/schema"
)

// The group metrics.k8s.io, from which kubectl top reads. What it serves is made
// of the nodes' newest words when it is asked for; nothing of it is stored, so
// that it cannot be watched.

var usageVersion = k8sschema.GroupVersion{Group: "metrics.k8s.io", Version: "v1beta1"}

// podMetrics and nodeMetrics are the API's own types, in JSON.
type podMetrics struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta  `json:"metadata"`
	Timestamp       metav1.Time        `json:"timestamp"`
	Window          metav1.Duration    `json:"window"`
	Containers      []containerMetrics `json:"containers"`
}

type containerMetrics struct {
	Name  string              `json:"name"`
	Usage corev1.ResourceList `json:"usage"`
}

type nodeMetrics struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta   `json:"metadata"`
	Timestamp       metav1.Time         `json:"timestamp"`
	Window          metav1.Duration     `json:"window"`
	Usage           corev1.ResourceList `json:"usage"`
}

type metricsList struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ListMeta `json:"metadata"`
	Items           []any           `json:"items"`
}

// usageRows are the resources of the group.
func (s *Server) usageRows() []*resource {
	if s.Usage == nil {
		return nil
	}
	row := func(kind schema.Kind, name string, namespaced bool, of usageOf) *resource {
		return &resource{
			kind: kind, gvk: usageVersion.WithKind(name), namespaced: namespaced, verbs: []string{"get", "list"},
			fields: fieldTable{fields: map[string]fieldOf{"metadata.name": metaName}, refused: notKnown},
			read:   func(q *request) { q.usage(of) },
		}
	}
	pods := row(schema.Pods, "PodMetrics", true, usageOfPod)
	pods.fields.fields["metadata.namespace"] = metaNamespace
	return []*resource{row(schema.Nodes, "NodeMetrics", false, usageOfNode), pods}
}

// usageOf makes the metrics of an object of the cache; nil when there are none.
type usageOf func(q *request, o schema.Object) any

// usage answers get and list.
func (q *request) usage(of usageOf) {
	f, err := negotiate(q.r, offer{[]media{jsonMedia, yamlMedia}, wholeOrTable})
	if err != nil {
		q.fail(err)
		return
	}
	if f.shape == tableShape {
		q.usageAsTable(f, of)
		return
	}
	var answer any
	if q.verb == "get" {
		answer, err = q.oneUsage(of)
	} else {
		answer, err = q.allUsage(of)
	}
	if err != nil {
		q.fail(err)
		return
	}
	body, err := json.Marshal(answer)
	if err == nil {
		body, err = fromJSON(body, f.media)
	}
	if err != nil {
		q.fail(err)
		return
	}
	q.writeBody(q.w, q.r, http.StatusOK, f, body)
}

func (q *request) usageAsTable(f form, of usageOf) {
	var all []any
	if q.verb == "get" {
		one, err := q.oneUsage(of)
		if err != nil {
			q.fail(err)
			return
		}
		all = []any{one}
	} else {
		list, err := q.allUsage(of)
		if err != nil {
			q.fail(err)
			return
		}
		all = list.Items
	}
	q.usageTable(f, all)
}

// oneUsage is of the object that the request names. As in Kubernetes one that
// is not there and one that was not measured yet are the same.
func (q *request) oneUsage(of usageOf) (any, error) {
	if item, ok := q.Cache.Get(q.key()); ok {
		if m := of(q, item.Object()); m != nil {
			return m, nil
		}
	}
	what, name := "nodemetrics", q.t.name
	if q.res.namespaced {
		what, name = "podmetrics", q.t.namespace+"/"+q.t.name
	}
	return nil, apierrors.NewNotFound(usageVersion.WithResource(what).GroupResource(), name)
}

func (q *request) allUsage(of usageOf) (*metricsList, error) {
	o, err := q.options()
	if err != nil {
		return nil, err
	}
	l := &metricsList{TypeMeta: q.res.listMeta(), Items: []any{}}
	items, _ := q.Cache.List(q.res.kind, q.t.namespace)
	for _, i := range items {
		if !o.filter.matches(i.Object()) {
			continue
		}
		if m := of(q, i.Object()); m != nil {
			l.Items = append(l.Items, m)
		}
	}
	return l, nil
}

// about is the metadata of metrics: made now, with the labels of the object.
func (q *request) about(o schema.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: o.GetName(), Namespace: o.GetNamespace(), Labels: o.GetLabels(),
		CreationTimestamp: metav1.NewTime(q.Now().Truncate(time.Second)),
	}
}

// kindOf says what one answer is; of the items of a list the list says it.
func (q *request) kindOf() metav1.TypeMeta {
	if q.verb == "list" {
		return metav1.TypeMeta{}
	}
	return metav1.TypeMeta{Kind: q.res.gvk.Kind, APIVersion: q.res.apiVersion()}
}

func usageOfNode(q *request, o schema.Object) any {
	told := q.Usage(schema.NodeName(o.GetName()))
	if told == nil {
		return nil
	}
	return &nodeMetrics{
		TypeMeta: q.kindOf(), Metadata: q.about(o),
		Timestamp: metav1.NewTime(told.Time), Window: windowOf(told.Window), Usage: quantities(told.Usage),
	}
}

func usageOfPod(q *request, o schema.Object) any {
	p, ok := o.(*corev1.Pod)
	if !ok || p.Spec.NodeName == "" {
		return nil
	}
	told := q.Usage(schema.NodeName(p.Spec.NodeName))
	if told == nil {
		return nil
	}
	mine := findPod(told.Pods, p)
	if mine == nil || len(mine.Containers) == 0 {
		return nil
	}
	m := &podMetrics{TypeMeta: q.kindOf(), Metadata: q.about(o), Timestamp: metav1.NewTime(told.Time)}
	shortest := told.Window
	for _, c := range mine.Containers {
		if c.Window > 0 {
			shortest = min(shortest, c.Window)
		}
		m.Containers = append(m.Containers, containerMetrics{Name: c.Name, Usage: quantities(c.Usage)})
	}
	m.Window = windowOf(shortest)
	return m
}

// findPod finds a pod among those of its node; nil when it is not there, or
// another one of that name.
func findPod(pods []schema.PodUsage, p *corev1.Pod) *schema.PodUsage {
	i, ok := sort.Find(len(pods), func(i int) int {
		return cmp.Or(cmp.Compare(p.Namespace, pods[i].Namespace), cmp.Compare(p.Name, pods[i].Name))
	})
	if !ok || pods[i].UID != p.UID {
		return nil
	}
	return &pods[i]
}

// windowOf tells a window to the millisecond, as people read it.
func windowOf(d time.Duration) metav1.Duration {
	return metav1.Duration{Duration: d.Round(time.Millisecond)}
}

// quantities is usage in the units in which Kubernetes' server gives it.
func quantities(u schema.Usage) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *apiresource.NewScaledQuantity(int64(u.CPU), apiresource.Nano),
		corev1.ResourceMemory: *apiresource.NewQuantity(int64(u.Memory), apiresource.BinarySI),
	}
}
