package api

import (
	"context"
	"net/http"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/api/table"
	"github.com/pawl-project/pawl/schema"
)

// The Leases of nodes, in the namespace in which Kubernetes has them. They say
// when a node was last heard. That changes every few seconds and is nobody's
// desire, so it is read from the store when it is asked for, and not watched.

const (
	leaseKind      schema.Kind = "leases"
	leaseNamespace             = corev1.NamespaceNodeLease
)

// leaseRows are the resources of the group.
func (s *Server) leaseRows() []*resource {
	if s.Lease == nil {
		return nil
	}
	return []*resource{{
		kind: leaseKind, gvk: coordinationv1.SchemeGroupVersion.WithKind("Lease"), namespaced: true, proto: true, verbs: []string{"get", "list"},
		fields: fieldTable{fields: map[string]fieldOf{"metadata.name": metaName, "metadata.namespace": metaNamespace}, refused: notKnown},
		read:   (*request).readLeases, columns: table.Leases(),
	}}
}

// readLeases answers get and list.
func (q *request) readLeases() {
	f, err := negotiate(q.r, offer{q.res.media(), wholeOrTable})
	if err != nil {
		q.fail(err)
		return
	}
	if q.verb == "get" {
		l, err := q.lease(q.t.namespace, q.t.name)
		if err == nil && l == nil {
			err = apierrors.NewNotFound(q.res.groupResource(), q.t.name)
		}
		if err != nil {
			q.fail(err)
			return
		}
		q.answerObject(http.StatusOK, f, l)
		return
	}
	leases, err := q.leases()
	if err != nil {
		q.fail(err)
		return
	}
	if f.shape == tableShape {
		var rows []schema.Object
		for i := range leases {
			rows = append(rows, &leases[i])
		}
		q.answerRows(f, rows)
		return
	}
	for i := range leases {
		leases[i].TypeMeta = metav1.TypeMeta{}
	}
	q.writeObject(q.w, q.r, http.StatusOK, f, &coordinationv1.LeaseList{TypeMeta: q.res.listMeta(), Items: leases})
}

// leases are those of all nodes that are selected.
func (q *request) leases() ([]coordinationv1.Lease, error) {
	o, err := q.options()
	if err != nil {
		return nil, err
	}
	leases := []coordinationv1.Lease{}
	if q.t.namespace != "" && q.t.namespace != leaseNamespace {
		return leases, nil
	}
	nodes, _ := q.Cache.List(schema.Nodes, "")
	for _, n := range nodes {
		l, err := q.lease(leaseNamespace, n.Key.Name)
		if err != nil {
			return nil, err
		}
		if l != nil && o.filter.matches(l) {
			leases = append(leases, *l)
		}
	}
	return leases, nil
}

// lease is that of a node; nil when there is none.
func (q *request) lease(namespace, name string) (*coordinationv1.Lease, error) {
	item, ok := q.Cache.Get(schema.ObjectKey{Kind: schema.Nodes, Name: name})
	if !ok || namespace != leaseNamespace {
		return nil, nil
	}
	renewed, lasts, err := q.Lease(q.r.Context(), schema.NodeName(name))
	if err != nil || renewed.IsZero() {
		return nil, err
	}
	n := item.Object()
	at := metav1.NewMicroTime(renewed)
	return &coordinationv1.Lease{
		TypeMeta: metav1.TypeMeta{APIVersion: q.res.apiVersion(), Kind: q.res.gvk.Kind},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: leaseNamespace, Name: name, CreationTimestamp: n.GetCreationTimestamp(),
			UID:             schema.UIDOf(schema.ObjectKey{Kind: leaseKind, Namespace: leaseNamespace, Name: name}),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: n.GetUID()}},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: new(int32(lasts / time.Second)), RenewTime: &at},
	}, nil
}

// wholeOrTable are the shapes of what is made when it is asked for.
func wholeOrTable(s shape, group, version string) bool {
	return s == wholeShape || s == tableShape && metaVersion(group, version)
}

// answerRows writes objects that are nobody else's as a Table.
func (q *request) answerRows(f form, objects []schema.Object) {
	include, err := includeObject(q.r.URL.Query())
	if err != nil {
		q.fail(err)
		return
	}
	t := q.emptyTable(f.version, metav1.ListMeta{})
	t.ColumnDefinitions = q.res.columns.Definitions()
	for _, o := range objects {
		row, err := q.row(o, nil, include, f.version)
		if err != nil {
			q.fail(err)
			return
		}
		t.Rows = append(t.Rows, row)
	}
	q.writeObject(q.w, q.r, http.StatusOK, f, t)
}

// A LeaseOf says when a node was last heard and how long that counts; the zero
// time for a node that has no lease. The error is the store's.
type LeaseOf func(ctx context.Context, n schema.NodeName) (renewed time.Time, lasts time.Duration, err error)
