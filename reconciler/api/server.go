package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/api/openapi"
)

// A Server answers /api, /apis, /openapi, /version, /livez, /readyz and
// /healthz. Make one with New. It starts no goroutine: what waits, waits in the
// goroutine of its request.
type Server struct {
	Options
	resources map[k8sschema.GroupVersionResource]*resource // never written to after New
	discovery *discovery
	openapi   *openapi.Handler
	metrics   metrics
	frames    frames

	open  context.Context // done when watches are to end
	close context.CancelFunc
}

// New returns a Server.
func New(o Options) *Server {
	s := &Server{Options: o.withDefaults()}
	s.open, s.close = context.WithCancel(context.Background())
	rows := s.rows()
	s.resources = make(map[k8sschema.GroupVersionResource]*resource, len(rows))
	for _, r := range rows {
		s.resources[r.gvr()] = r
	}
	s.discovery = newDiscovery(rows)
	s.openapi = openapi.New()
	return s
}

// Close ends every watch cleanly, now and later ones at once, so that a server
// that shuts down need not wait for them. Other requests are still answered.
func (s *Server) Close() { s.close() }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, began: time.Now()}
	rec.label(strings.ToUpper(r.Method), "")
	defer s.metrics.observe(rec)
	rec.Header().Set("X-Content-Type-Options", "nosniff")
	path := r.URL.Path
	// A route of its own may lie where a resource would: it goes first.
	if t, ok := parseTarget(path); ok && t.resource != "" && s.route(path) == nil {
		s.serveResource(rec, r, t)
		return
	}
	s.servePath(rec, r, path)
}

// servePath answers what is not a resource.
func (s *Server) servePath(w *recorder, r *http.Request, path string) {
	handler := s.pathHandler(path)
	if handler == nil && !s.discovery.has(path) {
		s.fail(w, r, noSuchResource(), k8sschema.GroupResource{}, "")
		return
	}
	probe := isProbe(path)
	if err := s.mayPath(r); err != nil && !probe {
		s.fail(w, r, err, k8sschema.GroupResource{}, "")
		return
	}
	if done := s.onlyReads(w, r); done {
		return
	}
	if handler == nil {
		handler = s.serveDiscovery
	}
	handler(w, r)
}

func (s *Server) pathHandler(path string) http.HandlerFunc {
	switch {
	case path == "/version" || path == "/version/":
		return s.serveVersion
	case isProbe(path):
		return s.serveHealth
	case path == "/openapi/v3" || strings.HasPrefix(path, "/openapi/v3/"):
		return func(w http.ResponseWriter, r *http.Request) {
			defer inTime(w, largestDocument)()
			s.openapi.ServeHTTP(w, r)
		}
	}
	return s.route(path)
}

// largestDocument is what one of OpenAPI's has, in bytes, more or less.
const largestDocument = 4 << 20

// route is the handler of a further path; nil when there is none.
func (s *Server) route(path string) http.HandlerFunc {
	for _, route := range s.Extra {
		if route.Path != "" && route.Path == path {
			return func(w http.ResponseWriter, r *http.Request) { route.Handler(w, r, objectKey("", "", "")) }
		}
	}
	return nil
}

// onlyReads answers OPTIONS, and refuses every method but GET and HEAD.
func (s *Server) onlyReads(w http.ResponseWriter, r *http.Request) (done bool) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return false
	case http.MethodOptions:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		w.WriteHeader(http.StatusOK)
		return true
	}
	w.Header().Set("Allow", "GET, HEAD, OPTIONS")
	s.fail(w, r, methodNotAllowed(), k8sschema.GroupResource{}, "")
	return true
}

// mayPath says why the caller may not ask for a path that is no resource.
func (s *Server) mayPath(r *http.Request) error {
	user, ok := access.UserFrom(r.Context())
	if !ok {
		return apierrors.NewUnauthorized("Unauthorized")
	}
	allowed, reason := user.May(access.Attributes{Verb: strings.ToLower(r.Method), Path: r.URL.Path})
	if !allowed {
		return apierrors.NewForbidden(k8sschema.GroupResource{}, "", errors.New(reason))
	}
	return nil
}
