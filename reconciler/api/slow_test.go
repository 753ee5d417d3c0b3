package api

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-project/pawl/reconciler/access"
)

// A deaf caller reads nothing: what is written to it waits for the deadline.
type deaf struct {
	header http.Header
	until  time.Time
	gone   chan struct{}
	reads  bool // after all
}

func (d *deaf) Header() http.Header { return d.header }
func (d *deaf) WriteHeader(int)     {}
func (d *deaf) Flush()              {}

// SetWriteDeadline implements what http.ResponseController looks for.
func (d *deaf) SetWriteDeadline(t time.Time) error {
	d.until = t
	return nil
}

func (d *deaf) Write(b []byte) (int, error) {
	if d.reads {
		return len(b), nil
	}
	var expired <-chan time.Time
	if !d.until.IsZero() {
		expired = time.After(time.Until(d.until))
	}
	select {
	case <-expired:
		return 0, os.ErrDeadlineExceeded
	case <-d.gone:
		return 0, http.ErrAbortHandler
	}
}

// A caller who does not read what it asked for holds the answer in memory for a
// while, and not for as long as it likes. The next request on its connection, if
// there is one, has its own time.
func TestACallerWhoDoesNotReadIsCutOff(t *testing.T) {
	for name, q := range map[string]struct{ path, accept string }{
		"list":     {"/api/v1/configmaps", "application/json"},
		"protobuf": {"/api/v1/configmaps", string(protoMedia)},
		"YAML":     {"/api/v1/configmaps", "application/yaml"},
		"pretty":   {"/api/v1/configmaps?pretty=true", "application/json"},
		"partial":  {"/api/v1/configmaps", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"},
		"one":      {"/api/v1/namespaces/default/configmaps/a", "application/yaml"},
		"openapi":  {"/openapi/v3/api/v1", "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := bubble(t, 0)
				large := configFixture("default", "a", strings.Repeat("a", 100<<10))
				large.Annotations["note"] = strings.Repeat("a", 100<<10)
				d.put(large)
				w := &deaf{header: http.Header{}, gone: make(chan struct{})}
				ended := make(chan struct{})
				r := httptest.NewRequest("GET", q.path, nil)
				r.Header.Set("Accept", q.accept)
				r = r.WithContext(access.WithUser(t.Context(), admin))
				quick := &deaf{header: http.Header{}, reads: true}
				if d.server.ServeHTTP(quick, r); !quick.until.IsZero() {
					t.Error("the next request on the connection has until", quick.until)
				}
				go func() {
					defer close(ended)
					defer func() { _ = recover() }() // a list that ends early is cut off so
					d.server.ServeHTTP(w, r)
				}()
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				select {
				case <-ended:
				default:
					t.Error("it still waits")
				}
				close(w.gone)
				<-ended
			})
		})
	}
}
