package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

// writeTable writes objects as a Table in JSON, with its headers. It is joined
// row by row, because a Table's rows are of many types and large.
func (q *request) writeTable(w io.Writer, f form, meta metav1.ListMeta, items []*cache.Item) error {
	include, err := includeObject(q.r.URL.Query())
	if err != nil {
		return err
	}
	t := q.emptyTable(f.version, meta)
	t.ColumnDefinitions = q.res.columns.Definitions()
	frame, err := json.Marshal(t)
	if err != nil {
		return err
	}
	const end = "[]}" // the rows stand last
	if _, err := w.Write(bytes.TrimSuffix(frame, []byte(end))); err != nil {
		return err
	}
	return joinTo(w, items, nil, func(i *cache.Item) ([]byte, error) {
		o, err := q.res.object(i)
		if err != nil {
			return nil, err
		}
		row, err := q.row(o, i, include, f.version)
		if err != nil {
			return nil, err
		}
		return rowJSON(row)
	})
}

// rowJSON is a row in JSON. The object in it is not looked at again.
func rowJSON(row metav1.TableRow) ([]byte, error) {
	object := row.Object.Raw
	row.Object.Raw = nil
	cells, err := json.Marshal(row.Cells)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(cells)+len(object)+64)
	b = append(append(b, `{"cells":`...), cells...)
	if len(row.Conditions) > 0 {
		conditions, err := json.Marshal(row.Conditions)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"conditions":`...), conditions...)
	}
	if object == nil {
		object = []byte("null")
	}
	b = append(append(b, `,"object":`...), object...)
	return append(b, '}'), nil
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
