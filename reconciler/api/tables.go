package api

import (
	"encoding/json"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

// tableOf is objects as a Table in JSON, with its headers.
func (q *request) tableOf(f form, meta metav1.ListMeta, items []*cache.Item) ([]byte, error) {
	include, err := includeObject(q.r.URL.Query())
	if err != nil {
		return nil, err
	}
	t := q.emptyTable(f.version, meta)
	t.ColumnDefinitions = q.res.columns.Definitions()
	t.Rows = make([]metav1.TableRow, 0, len(items))
	for _, i := range items {
		o, err := q.res.object(i)
		if err != nil {
			return nil, err
		}
		row, err := q.row(o, i, include, f.version)
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, row)
	}
	return json.Marshal(t)
}

func (q *request) emptyTable(version string, meta metav1.ListMeta) *metav1.Table {
	return &metav1.Table{
		TypeMeta:          metav1.TypeMeta{Kind: string(tableShape), APIVersion: metaGroup + "/" + version},
		ListMeta:          meta,
		ColumnDefinitions: []metav1.TableColumnDefinition{},
		Rows:              []metav1.TableRow{},
	}
}

// row is one object's row. The item gives the encoding of the whole object where
// that may be shared; nil: there is none.
func (q *request) row(o schema.Object, i *cache.Item, include metav1.IncludeObjectPolicy, version string) (metav1.TableRow, error) {
	row := metav1.TableRow{Cells: q.res.columns.Row(o, q.Now()), Conditions: q.res.columns.Conditions(o)}
	var err error
	switch {
	case include == metav1.IncludeMetadata:
		row.Object.Raw, err = json.Marshal(partialOf(o, version))
	case include == metav1.IncludeObject && i != nil && q.res.open == nil:
		row.Object.Raw = i.JSON()
	case include == metav1.IncludeObject:
		row.Object.Raw, err = json.Marshal(o)
	default:
		row.Object = runtime.RawExtension{}
	}
	return row, err
}

// includeObject is what of the object a row is to hold.
func includeObject(query url.Values) (metav1.IncludeObjectPolicy, error) {
	switch p := metav1.IncludeObjectPolicy(query.Get("includeObject")); p {
	case "":
		return metav1.IncludeMetadata, nil
	case metav1.IncludeMetadata, metav1.IncludeObject, metav1.IncludeNone:
		return p, nil
	default:
		return "", apierrors.NewBadRequest("Invalid value: \"" + string(p) + "\": must be 'Metadata', 'Object', 'None', or empty")
	}
}
