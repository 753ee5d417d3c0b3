package api

import (
	"encoding/json"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// usageColumns are those of Kubernetes' metrics server.
var usageColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
	{Name: "cpu", Type: "string", Format: "quantity"},
	{Name: "memory", Type: "string", Format: "quantity"},
	{Name: "Window", Type: "string", Format: "duration"},
}

// usageTable answers with metrics as a Table.
func (q *request) usageTable(f form, all []any) {
	include, err := includeObject(q.r.URL.Query())
	if err != nil {
		q.fail(err)
		return
	}
	t := q.emptyTable(f.version, metav1.ListMeta{})
	t.ColumnDefinitions = usageColumns
	for _, m := range all {
		var meta metav1.ObjectMeta
		var window metav1.Duration
		sum := corev1.ResourceList{}
		switch m := m.(type) {
		case *nodeMetrics:
			meta, window, sum = m.Metadata, m.Window, m.Usage
		case *podMetrics:
			meta, window = m.Metadata, m.Window
			for _, c := range m.Containers {
				for name, quantity := range c.Usage {
					total := sum[name]
					total.Add(quantity)
					sum[name] = total
				}
			}
		}
		row := metav1.TableRow{Cells: []any{meta.Name, sum.Cpu().String(), sum.Memory().String(), window.Duration.String()}}
		if row.Object, err = usageObject(meta, m, include, f.version); err != nil {
			q.fail(err)
			return
		}
		t.Rows = append(t.Rows, row)
	}
	q.writeObject(q.w, q.r, http.StatusOK, f, t)
}

func usageObject(meta metav1.ObjectMeta, whole any, include metav1.IncludeObjectPolicy, version string) (o runtime.RawExtension, err error) {
	switch include {
	case metav1.IncludeMetadata:
		o.Raw, err = json.Marshal(&metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{Kind: string(partialShape), APIVersion: metaGroup + "/" + version}, ObjectMeta: meta,
		})
	case metav1.IncludeObject:
		o.Raw, err = json.Marshal(whole)
	}
	return o, err
}
