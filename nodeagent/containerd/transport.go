package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pawl-project/pawl/schema"
)

const (
	// maxManifest bounds a manifest or an index, in bytes. It is read into memory.
	maxManifest = 4 << 20
	// maxToken bounds the answer of a registry's token server, in bytes.
	maxToken = 1 << 20
	// busyMost bounds how long a registry may have us wait.
	busyMost = 5 * time.Minute
)

// A pace is the slowest that a registry may be.
type pace struct {
	answer time.Duration // until an answer begins
	window time.Duration // of waiting for a body, in which enough bytes must come
	enough int64         // bytes
}

var usualPace = pace{answer: 30 * time.Second, window: 30 * time.Second, enough: 16 << 10}

// A wire carries requests to registries: connections that all pulls share, with
// an eye on what a registry does that is broken or means ill. The client library
// tries again at once whatever looks like bad luck; what the wire refuses it
// leaves to the pod's back-off.
type wire struct {
	http *http.Transport
	pace pace

	mu   sync.Mutex
	busy map[string]*busyError // by host: asked us to wait
}

func newWire(p pace) *wire {
	if p == (pace{}) {
		p = usualPace
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 8
	t.IdleConnTimeout = 30 * time.Second
	t.ResponseHeaderTimeout = p.answer
	t.MaxResponseHeaderBytes = 256 << 10
	return &wire{http: t, pace: p, busy: map[string]*busyError{}}
}

func (w *wire) close() { w.http.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	most := int64(-1)
	if strings.Contains(r.URL.Path, "/manifests/") {
		most = maxManifest
	}
	return w.carry(r, most)
}

// carry makes one request; most bounds the answer's body in bytes, -1: not.
func (w *wire) carry(r *http.Request, most int64) (*http.Response, error) {
	if err := w.mayAsk(r); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	response, err := w.http.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, w.silent(r, err)
	}
	if busy := w.isBusy(response); busy != nil {
		response.Body.Close()
		cancel(nil)
		return nil, busy
	}
	if most >= 0 && response.ContentLength > most {
		response.Body.Close()
		cancel(nil)
		return nil, fmt.Errorf("%s sends a document of %d bytes, more than its kind may have: %w", r.URL.Host, response.ContentLength, schema.ErrRefused)
	}
	response.Body = &watchedBody{ReadCloser: response.Body, ctx: ctx, cancel: cancel, pace: w.pace, host: r.URL.Host, left: most}
	return response, nil
}

// mayAsk refuses what must not go out.
func (w *wire) mayAsk(r *http.Request) error {
	if from := r.Response; from != nil && from.Request != nil && from.Request.URL.Scheme == "https" && r.URL.Scheme != "https" {
		return fmt.Errorf("the registry leads from https to plain http on %s: %w", r.URL.Host, schema.ErrRefused)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	busy := w.busy[r.URL.Host]
	if busy == nil {
		return nil
	}
	left := time.Until(busy.until)
	if left <= 0 {
		delete(w.busy, r.URL.Host)
		return nil
	}
	return &busyError{host: busy.host, status: busy.status, after: left, until: busy.until}
}

// silent is the error of a request without an answer. A timeout is told as
// something else, because the library would try five times over.
func (w *wire) silent(r *http.Request, err error) error {
	var timeout net.Error
	if r.Context().Err() == nil && errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("%s does not answer within %s: %w", r.URL.Host, w.pace.answer, schema.ErrUnavailable)
	}
	return err
}

// isBusy says whether a registry asks to be left alone for a while.
func (w *wire) isBusy(response *http.Response) *busyError {
	header := response.Header.Get("Retry-After")
	if response.StatusCode != http.StatusTooManyRequests && (response.StatusCode != http.StatusServiceUnavailable || header == "") {
		return nil
	}
	host, now := response.Request.URL.Host, time.Now()
	b := &busyError{host: host, status: fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode)), after: retryAfter(header, now)}
	if b.after > 0 {
		b.until = now.Add(b.after)
		w.mu.Lock()
		maps.DeleteFunc(w.busy, func(_ string, b *busyError) bool { return !b.until.After(now) })
		w.busy[host] = b
		w.mu.Unlock()
	}
	return b
}

// retryAfter reads a Retry-After header, in seconds or as a date; 0 when it says
// nothing of use, and busyMost at most.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if n, err := strconv.ParseInt(header, 10, 64); err == nil {
		if n <= 0 {
			return 0
		}
		return min(time.Duration(min(n, int64(busyMost/time.Second)))*time.Second, busyMost)
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, min(at.Sub(now), busyMost))
	}
	return 0
}

// A busyError is a registry that asks not to be asked for a while.
type busyError struct {
	host, status string
	after        time.Duration // 0: it does not say how long
	until        time.Time
}

func (e *busyError) Error() string {
	if e.after == 0 {
		return fmt.Sprintf("%s gets too many requests (%s)", e.host, e.status)
	}
	return fmt.Sprintf("%s asks not to be asked for %s (%s)", e.host, e.after.Round(time.Second), e.status)
}

// Unwrap classes it.
func (e *busyError) Unwrap() error { return schema.ErrUnavailable }

// RetryAfter is how long to wait before the next try, at least.
func (e *busyError) RetryAfter() time.Duration { return e.after }

// errSlow is why a request was cut off that brought too little.
var errSlow = errors.New("too slow")

// A watchedBody is an answer's body that must keep coming, and end. Only the
// time that is spent waiting for it counts: a slow disk is not the registry's
// fault.
type watchedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	pace   pace
	host   string
	left   int64 // bytes that may still come; -1: any number

	waited time.Duration // in this window
	got    int64
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	began := time.Now()
	t := time.AfterFunc(b.pace.window-b.waited, func() { b.cancel(errSlow) })
	n, err := b.ReadCloser.Read(p)
	t.Stop()
	b.waited += time.Since(began)
	b.got += int64(n)
	switch {
	case err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(b.ctx), errSlow):
		return n, fmt.Errorf("%s sends too slowly: %d bytes within %s: %w", b.host, b.got, b.pace.window, schema.ErrUnavailable)
	case b.got >= b.pace.enough:
		b.waited, b.got = 0, 0
	}
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			return 0, fmt.Errorf("%s sends a document without end, more than its kind may have: %w", b.host, schema.ErrRefused)
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// A tokenWire carries requests to the token server that a registry names. What
// goes there is a password, so it is not led from https to plain http.
type tokenWire struct {
	*wire
	secure bool // the registry itself is spoken to over https
}

// RoundTrip implements http.RoundTripper.
func (w tokenWire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.secure && r.URL.Scheme != "https" {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, fmt.Errorf("the registry wants credentials sent over plain http to %s: %w", r.URL.Host, schema.ErrRefused)
	}
	return w.carry(r, maxToken)
}
