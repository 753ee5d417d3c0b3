package api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// bounds are the upper bounds of the latency histogram's buckets, in seconds.
var bounds = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// metrics counts requests, under the names that Kubernetes' API server uses.
type metrics struct {
	mu      sync.Mutex
	total   map[series]uint64
	latency map[series]*histogram // without code
	running map[series]int64      // long-running ones, without code
}

// A series is one set of labels. Their values are few: a resource that is not
// known is "".
type series struct {
	verb, resource string
	code           int
}

type histogram struct {
	buckets []uint64 // one for each bound
	count   uint64
	sum     float64 // seconds
}

// A recorder is a ResponseWriter that remembers what is to be counted.
type recorder struct {
	http.ResponseWriter
	began          time.Time
	verb, resource string
	code           int
	long           bool // lasts as long as the caller likes: no latency
}

func (w *recorder) label(verb, resource string) { w.verb, w.resource = verb, resource }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach what is below.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *recorder) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack implements http.Hijacker, for streams that leave HTTP.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := w.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("the connection cannot be taken over")
	}
	if w.code == 0 {
		w.code = http.StatusSwitchingProtocols
	}
	return h.Hijack()
}

// verbs are those that are counted by name; metricVerb gives the others none.
var verbs = map[string]string{
	"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH",
	"delete": "DELETE", "deletecollection": "DELETECOLLECTION",
}

// metricVerb is how a verb is counted: streams are one of their own.
func metricVerb(verb string, sub *subresource) string {
	if sub != nil && sub.streams {
		return "CONNECT"
	}
	if name, ok := verbs[verb]; ok {
		return name
	}
	return "OTHER"
}

func (m *metrics) observe(w *recorder) {
	took := time.Since(w.began).Seconds()
	if w.code == 0 {
		w.code = http.StatusOK
	}
	if w.resource == "" && verbs[strings.ToLower(w.verb)] == "" && !slices.Contains([]string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}, w.verb) {
		w.verb = "OTHER"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.total == nil {
		m.total, m.latency = map[series]uint64{}, map[series]*histogram{}
	}
	m.total[series{w.verb, w.resource, w.code}]++
	if w.long {
		return
	}
	s := series{verb: w.verb, resource: w.resource}
	h := m.latency[s]
	if h == nil {
		h = &histogram{buckets: make([]uint64, len(bounds))}
		m.latency[s] = h
	}
	h.count++
	h.sum += took
	if n, _ := slices.BinarySearch(bounds, took); n < len(bounds) {
		h.buckets[n]++
	}
}

// longRunning counts a request among those that run, until the function it
// returns is called.
func (m *metrics) longRunning(w *recorder) func() {
	w.long = true
	s := series{verb: w.verb, resource: w.resource}
	m.add(s, 1)
	return func() { m.add(s, -1) }
}

func (m *metrics) add(s series, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running == nil {
		m.running = map[series]int64{}
	}
	m.running[s] += n
}

// Metrics writes the counts in Prometheus' text format.
func (s *Server) Metrics(w io.Writer) { s.metrics.write(w) }

func (m *metrics) write(w io.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Fprint(w, "# HELP apiserver_request_total Requests answered, by verb, resource and code.\n# TYPE apiserver_request_total counter\n")
	for _, s := range sorted(m.total) {
		fmt.Fprintf(w, "apiserver_request_total{verb=%q,resource=%q,code=\"%d\"} %d\n", s.verb, s.resource, s.code, m.total[s])
	}
	const latency = "apiserver_request_duration_seconds"
	fmt.Fprintf(w, "# HELP %s Time to answer a request that is not long-running.\n# TYPE %s histogram\n", latency, latency)
	for _, s := range sorted(m.latency) {
		m.latency[s].write(w, latency, fmt.Sprintf("verb=%q,resource=%q", s.verb, s.resource))
	}
	fmt.Fprint(w, "# HELP apiserver_longrunning_requests Watches and streams that are open.\n# TYPE apiserver_longrunning_requests gauge\n")
	for _, s := range sorted(m.running) {
		fmt.Fprintf(w, "apiserver_longrunning_requests{verb=%q,resource=%q} %d\n", s.verb, s.resource, m.running[s])
	}
}

func (h *histogram) write(w io.Writer, name, labels string) {
	var below uint64
	for n, b := range bounds {
		below += h.buckets[n]
		fmt.Fprintf(w, "%s_bucket{%s,le=\"%g\"} %d\n", name, labels, b, below)
	}
	fmt.Fprintf(w, "%s_bucket{%s,le=\"+Inf\"} %d\n%s_sum{%s} %g\n%s_count{%s} %d\n", name, labels, h.count, name, labels, h.sum, name, labels, h.count)
}

func sorted[V any](m map[series]V) []series {
	out := make([]series, 0, len(m))
	for s := range m {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b series) int {
		if c := strings.Compare(a.resource, b.resource); c != 0 {
			return c
		}
		if c := strings.Compare(a.verb, b.verb); c != 0 {
			return c
		}
		return a.code - b.code
	})
	return out
}
