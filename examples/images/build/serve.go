package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Serve starts a registry of every image on a free port of loopback, to be given
// to Pawl as a mirror of docker.io. Each image is built when it is first asked
// for; names in advance are built now. stop ends it and waits.
func Serve(ctx context.Context, names ...string) (url string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	r := NewRegistry()
	for _, name := range names {
		if err := r.Add(ctx, name); err != nil {
			return "", nil, errors.Join(err, listener.Close())
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx, listener); err != nil {
			log.Printf("registry: %v", err)
		}
	})
	return "http://" + listener.Addr().String(), func() { cancel(); wg.Wait() }, nil
}

// A Registry serves images below library/, as docker.io does. It keeps them in memory.
type Registry struct {
	store http.Handler

	mu    sync.Mutex
	added map[string]bool
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{store: registry.New(registry.Logger(log.New(io.Discard, "", 0))), added: map[string]bool{}}
}

// Run serves until ctx is done.
func (r *Registry) Run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-ctx.Done()
		server.Close()
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ServeHTTP answers as a registry; an image that is asked for by tag and can be
// built is there.
func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if path, ok := strings.CutPrefix(q.URL.Path, "/v2/library/"); ok && (q.Method == http.MethodGet || q.Method == http.MethodHead) {
		if repository, tag, ok := strings.Cut(path, "/manifests/"); ok && Known(repository+":"+tag) {
			if err := r.Add(q.Context(), repository+":"+tag); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
	}
	r.store.ServeHTTP(w, q)
}

// Add builds an image and keeps it under its name.
func (r *Registry) Add(ctx context.Context, image string) error {
	repository, tag := split(image)
	image = repository + ":" + tag
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.added[image] {
		return nil
	}
	built, err := Images(ctx, image)
	if err != nil {
		return err
	}
	ref, err := name.NewTag("registry.local/library/"+image, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, built[image], remote.WithContext(ctx), remote.WithTransport(direct{r.store})); err != nil {
		return fmt.Errorf("put %s into the registry: %w", image, err)
	}
	r.added[image] = true
	return nil
}

// direct is a transport that calls a handler without a network.
type direct struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (d direct) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.Body == nil {
		q.Body = http.NoBody
	}
	defer q.Body.Close()
	w := &answer{header: http.Header{}, code: http.StatusOK}
	d.handler.ServeHTTP(w, q)
	return &http.Response{
		StatusCode: w.code, Status: http.StatusText(w.code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(strings.NewReader(w.body.String())), ContentLength: int64(w.body.Len()), Request: q,
	}, nil
}

// An answer holds what a handler writes.
type answer struct {
	header http.Header
	code   int
	body   strings.Builder
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
