package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
)

// A cachedDiscovery asks the server for its kinds with one request for each of
// /api and /apis, and keeps the answers on disk for the next commands.
type cachedDiscovery struct {
	discovery.CachedDiscoveryInterface
	answers *answers
}

func (c *cluster) newDiscovery() (discovery.CachedDiscoveryInterface, error) {
	config, err := c.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	kept := &answers{dir: c.cacheDir()}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return asker{answers: kept, next: next}
	})
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &cachedDiscovery{memory.NewMemCacheClient(client), kept}, nil
}

// cacheDir is $XDG_CACHE_HOME/pawl, or "" when nobody says where home is.
func (c *cluster) cacheDir() string {
	if dir := c.env("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "pawl")
	}
	if home := c.env("HOME"); home != "" {
		return filepath.Join(home, ".cache", "pawl")
	}
	return ""
}

// Fresh implements discovery.CachedDiscoveryInterface: whether asking again
// could not tell more.
func (d *cachedDiscovery) Fresh() bool {
	return d.CachedDiscoveryInterface.Fresh() && !d.answers.old.Load()
}

// ServerGroupsAndResources implements discovery.DiscoveryInterface, in the
// server's order. The one that is wrapped has them in a map's order, and `get
// all` prints the kinds as they come.
func (d *cachedDiscovery) ServerGroupsAndResources() ([]*metav1.APIGroup, []*metav1.APIResourceList, error) {
	return discovery.ServerGroupsAndResources(d)
}

// Invalidate implements discovery.CachedDiscoveryInterface: the server is asked.
func (d *cachedDiscovery) Invalidate() {
	d.answers.distrusted.Store(true)
	d.answers.old.Store(false)
	d.CachedDiscoveryInterface.Invalidate()
}

// answers are files below dir, one for each URL and kind of answer.
type answers struct {
	dir        string      // "": nothing is kept
	distrusted atomic.Bool // what earlier commands kept is not good enough
	old        atomic.Bool // an answer of an earlier command was used
}

// An asker sends requests for discovery, unless their answer is known.
type asker struct {
	answers *answers
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (a asker) RoundTrip(r *http.Request) (*http.Response, error) {
	path := r.URL.Path
	if r.Method != http.MethodGet || path != "/api" && path != "/apis" || a.answers.dir == "" {
		return a.next.RoundTrip(r)
	}
	name := sha256.Sum256([]byte(r.URL.String() + "\n" + r.Header.Get("Accept")))
	file := filepath.Join(a.answers.dir, "discovery", hex.EncodeToString(name[:16]))
	if !a.answers.distrusted.Load() {
		if response := recall(file, r); response != nil {
			a.answers.old.Store(true)
			return response, nil
		}
	}
	response, err := a.next.RoundTrip(r)
	if err != nil || response.StatusCode != http.StatusOK {
		return response, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err
	}
	// A cache that cannot be written costs a request the next time, no more.
	_ = replaceFile(file, append([]byte(response.Header.Get("Content-Type")+"\n"), body...))
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

// recall is the answer that file holds, nil when there is none that is young enough.
func recall(file string, r *http.Request) *http.Response {
	info, err := os.Stat(file)
	if err != nil || time.Since(info.ModTime()) > discoveryAge {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	kind, body, ok := bytes.Cut(text, []byte("\n"))
	if !ok {
		return nil
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {string(kind)}},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       r,
	}
}
