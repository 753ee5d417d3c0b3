package reconciler

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/metrics"
	"time"
)

// frontDoor is what listens on --http. Only the probes answer without the token.
type frontDoor struct {
	token   string
	git     http.Handler // nil when the desired state is in a remote repository
	lookNow func()       // nil when it is in the built-in one
	ready   func() error // why the control plane is not ready; nil when it is
	gauges  func() []gauge
}

func (d frontDoor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", d.readyz)
	mux.Handle("GET /metrics", d.guard(http.HandlerFunc(d.metrics)))
	mux.Handle("POST /webhook", d.guard(http.HandlerFunc(d.webhook)))
	mux.Handle("/debug/pprof/", d.guard(http.HandlerFunc(pprof.Index)))
	mux.Handle("/debug/pprof/profile", d.guard(http.HandlerFunc(pprof.Profile)))
	mux.Handle("/debug/pprof/trace", d.guard(http.HandlerFunc(pprof.Trace)))
	if d.git != nil {
		mux.Handle("/git/", d.git) // asks for the token itself, in Git's way
	}
	return mux
}

func (d frontDoor) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !authorized(r, d.token) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="pawl"`)
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
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
}

func processGauges() []gauge {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return []gauge{
		{"go_goroutines", "Goroutines that exist.", float64(runtime.NumGoroutine())},
		{"go_memory_heap_objects_bytes", "Bytes of live and not yet swept heap objects.", float64(s[0].Value.Uint64())},
	}
}

// serve answers on address until ctx is done, then lets requests end for a moment.
func serve(ctx context.Context, address string, h http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w; --http chooses another address", err)
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("shut down HTTP: %w", err)
	}
	return server.Close()
}
