package reconciler

import (
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/metrics"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/access"
)

// frontDoor is what listens on --http. Nothing behind it is reached without a
// credential, but for a word whether the daemon lives and is ready, and what others
// need to read the tokens of service accounts.
type frontDoor struct {
	access  *access.Access
	crowd   *crowd
	api     http.Handler // everything that is not named in handler; it asks May itself. nil: there is nothing else
	git     http.Handler // nil when the desired state is in a remote repository; asks for a credential itself, in Git's way
	lookNow func()       // nil when it is in the built-in one
	ready   func() error // why the control plane is not ready; nil when it is
	gauges  func() []gauge
	figures []func(io.Writer) // further figures for /metrics, in Prometheus' text format
}

func (d frontDoor) handler() http.Handler {
	guarded := d.access.Guard(d.crowd.people(asThemselves(d.known())))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case d.git != nil && strings.HasPrefix(r.URL.Path, "/git/"):
			d.git.ServeHTTP(w, r)
		case probe(r) && !d.knows(r):
			d.answerProbe(w, r)
		case d.access.OpenID(r) != nil:
			d.access.OpenID(r)(w, r)
		default:
			guarded.ServeHTTP(w, r)
		}
	})
}

// known is what users reach who are known.
func (d frontDoor) known() http.Handler {
	mux := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{
		"GET /metrics":         d.metrics,
		"POST /webhook":        d.webhook,
		"/debug/pprof/":        pprof.Index,
		"/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/trace":   pprof.Trace,
	} {
		mux.Handle(path, access.Allow(h))
	}
	if d.api != nil {
		mux.Handle("/", d.api)
		return mux
	}
	mux.HandleFunc("GET /livez", d.answerProbe)
	mux.HandleFunc("GET /readyz", d.readyz)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		access.WriteStatus(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	})
	return mux
}

func (d frontDoor) knows(r *http.Request) bool {
	_, ok := d.access.Authenticate(r)
	return ok
}

// probe says whether r is the bare question of a supervisor. With a query it
// asks for details, which are for users only.
func probe(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.URL.RawQuery == "" && r.ContentLength == 0 &&
		(r.URL.Path == "/livez" || r.URL.Path == "/readyz")
}

// answerProbe says yes or no, and not why.
func (d frontDoor) answerProbe(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/readyz" && d.ready() != nil {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (d frontDoor) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := d.ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// webhook means "look now"; what the caller says of the change is not read.
func (d frontDoor) webhook(w http.ResponseWriter, _ *http.Request) {
	if d.lookNow == nil {
		http.Error(w, "this cluster's repository is built in: a push is seen at once", http.StatusNotFound)
		return
	}
	d.lookNow()
	w.WriteHeader(http.StatusAccepted)
}

// A gauge is one line of /metrics in Prometheus' text format.
type gauge struct {
	name, help string
	value      float64
}

func (d frontDoor) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	for _, g := range append(d.gauges(), processGauges()...) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n%s %g\n", g.name, g.help, g.name, g.name, g.value)
	}
	for _, write := range d.figures {
		write(w)
	}
}

func processGauges() []gauge {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return []gauge{
		{"go_goroutines", "Goroutines that exist.", float64(runtime.NumGoroutine())},
		{"go_memory_heap_objects_bytes", "Bytes of live and not yet swept heap objects.", float64(s[0].Value.Uint64())},
	}
}
