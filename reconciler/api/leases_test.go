package api

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

var leaseRenewed = time.Date(2026, 11, 21, 12, 0, 0, 123456000, time.UTC)

// leased opens a front door over a small cluster whose store fails as it is told.
func leased(t *testing.T, fails *error) *door {
	return newDoor(t, func(o *Options) {
		o.Lease = func(_ context.Context, n schema.NodeName) (time.Time, time.Duration, error) {
			if n != "n1" {
				return time.Time{}, 0, *fails
			}
			return leaseRenewed, 40 * time.Second, *fails
		}
	}).furnish()
}

func TestLeases(t *testing.T) {
	var fails error
	d := leased(t, &fails)
	const base = "/apis/coordination.k8s.io/v1"
	const one = base + "/namespaces/kube-node-lease/leases/n1"
	var l coordinationv1.Lease
	d.ask("GET", one, "").decode(t, &l)
	if l.Kind != "Lease" || *l.Spec.HolderIdentity != "n1" || *l.Spec.LeaseDurationSeconds != 40 || !l.Spec.RenewTime.Time.Equal(leaseRenewed) || l.OwnerReferences[0].Kind != "Node" {
		t.Errorf("%+v", l)
	}
	const table = "Accept: application/json;as=Table;g=meta.k8s.io;v=v1"
	for _, path := range []string{one, base + "/leases"} {
		var rows metav1.Table
		d.ask("GET", path, "", table).decode(t, &rows)
		if len(rows.Rows) != 1 || rows.Rows[0].Cells[0] != "n1" || rows.Rows[0].Cells[1] != "n1" || len(rows.ColumnDefinitions) != 3 {
			t.Errorf("%s: %+v", path, rows)
		}
	}
	for path, want := range map[string]int{
		"/leases": 1, "/namespaces/kube-node-lease/leases": 1, "/namespaces/default/leases": 0,
		"/leases?fieldSelector=metadata.name%3Dn1": 1, "/leases?fieldSelector=metadata.name%3Dn2": 0,
	} {
		var list coordinationv1.LeaseList
		d.ask("GET", base+path, "").decode(t, &list)
		if list.Kind != "LeaseList" || len(list.Items) != want || list.Items == nil {
			t.Errorf("%s: %+v", path, list)
		}
	}
	for path, want := range map[string]string{
		"/namespaces/kube-node-lease/leases/n2": `404 NotFound: leases.coordination.k8s.io "n2" not found`,
		"/namespaces/default/leases/n1":         `404 NotFound: leases.coordination.k8s.io "n1" not found`,
	} {
		if got := d.ask("GET", base+path, "").status(t); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	if a := d.ask("GET", one, "", "Accept: application/vnd.kubernetes.protobuf"); !strings.HasPrefix(a.text, protoMagic) {
		t.Errorf("%.60q", a.text)
	}
	if a := d.ask("GET", base, ""); !strings.Contains(a.text, `"kind":"Lease","verbs":["get","list"]`) {
		t.Error(a.text)
	}
	fails = errors.Join(errors.New("no answer"), schema.ErrUnavailable)
	if got := d.ask("GET", one, "").status(t); !strings.HasPrefix(got, "503 ") {
		t.Error(got)
	}
}

// Metrics have the columns of Kubernetes' metrics server.
func TestUsageTables(t *testing.T) {
	d := measured(t)
	for path, want := range map[string]string{
		"/pods":                         "talk 5m 3146728 4s",
		"/namespaces/default/pods/talk": "talk 5m 3146728 4s",
		"/nodes":                        "n1 1234567890n 2Gi 15.123s",
	} {
		var table metav1.Table
		a := d.ask("GET", "/apis/metrics.k8s.io/v1beta1"+path, "", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1")
		a.decode(t, &table)
		var cells []string
		for _, c := range table.Rows[0].Cells {
			cells = append(cells, c.(string))
		}
		if got := strings.Join(cells, " "); got != want || len(table.Rows) != 1 || !strings.Contains(a.text, `"kind":"PartialObjectMetadata"`) {
			t.Errorf("%s: %s\n%s", path, got, a.text)
		}
	}
}

// What stands in no file is refused with the reason why it is there.
func TestWhatNobodyWrote(t *testing.T) {
	d := newDoor(t).furnish()
	for request, want := range map[string]string{
		"DELETE /api/v1/namespaces/default":     `405 MethodNotAllowed: namespaces "default" cannot be deleted: every cluster has it`,
		"DELETE /api/v1/namespaces/kube-system": `405 MethodNotAllowed: namespaces "kube-system" is there because objects are in it: it ends when those are removed from http://127.0.0.1:7420/git/cluster.git (branch main)`,
		"PATCH /api/v1/namespaces/kube-system":  `405 MethodNotAllowed: namespaces "kube-system" stands in no file: add one with it to http://127.0.0.1:7420/git/cluster.git (branch main) and push`,
	} {
		method, path, _ := strings.Cut(request, " ")
		body, kind := "", "Content-Type: application/json"
		if method == "PATCH" {
			body, kind = "{}", "Content-Type: application/merge-patch+json"
		}
		if got := d.ask(method, path, body, kind).status(t); got != want {
			t.Errorf("%s: %s", request, got)
		}
	}
}
