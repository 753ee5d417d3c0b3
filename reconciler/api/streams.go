package api

import (
	"net/http"
	"slices"

	"github.com/pawl-project/pawl/schema"
)

// stream hands a pod's log or exec to whoever serves it.
func (q *request) stream(serve func(http.ResponseWriter, *http.Request, schema.PodKey), methods ...string) {
	if !slices.Contains(methods, q.r.Method) {
		q.fail(q.res.notSupported(q.verb))
		return
	}
	if _, err := q.item(); err != nil {
		q.fail(err)
		return
	}
	defer q.metrics.longRunning(q.w)()
	serve(q.w, q.r, schema.PodKey{Namespace: q.t.namespace, Name: q.t.name})
}
