package e2e

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/api"
	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/reconciler/api/stream"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A golden is Pawl's API over the objects of fixtures.yaml, and an environment
// in which clients find it.
type golden struct {
	t     *testing.T
	cache *cache.Cache
	moved time.Duration // what was added to the fixtures' times
	env   []string
}

// goldenUsers are known by their token, which is their name.
var goldenUsers = map[string]access.User{
	"admin":  {Name: "admin", Groups: []string{"system:masters", "system:authenticated"}, Role: access.Admin},
	"viewer": {Name: "viewer", Groups: []string{"system:authenticated"}, Role: access.View},
}

func newGolden(t *testing.T) *golden {
	g := &golden{t: t, cache: cache.New(cache.Options{}), moved: time.Since(goldenBase).Truncate(time.Second)}
	g.load()
	server := api.New(api.Options{
		Cache: g.cache, RestartPod: g.restart, Repository: "http://127.0.0.1:7420/git/cluster.git", Branch: "main", Version: "0.0.0",
		Streams: stream.New(stream.Options{Nodes: noNodes{}, Pod: g.pod}),
		// No node was ever heard, as in the recording.
		Lease: func(context.Context, schema.NodeName) (time.Time, time.Duration, error) { return time.Time{}, 0, nil },
	})
	t.Cleanup(server.Close)
	door := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, ok := goldenUsers[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		if !ok {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		server.ServeHTTP(w, r.WithContext(access.WithUser(r.Context(), user)))
	})
	open, encrypted := httptest.NewServer(door), httptest.NewTLSServer(door)
	t.Cleanup(open.Close)
	t.Cleanup(encrypted.Close)
	home := t.TempDir()
	g.writeConfigs(home, open, encrypted)
	g.env = g.environment(home)
	return g
}

// load puts the fixtures into the cache, their times moved to now: those that
// Kubernetes had too, and objects of Pawl's own kinds.
func (g *golden) load() {
	var objects []cache.Loaded
	version := uint64(time.Now().Add(-time.Hour).UnixNano())
	for _, file := range []string{"fixtures.yaml", "own.yaml"} {
		text, err := os.ReadFile(filepath.Join(goldenDir, file))
		if err != nil {
			g.t.Fatal(err)
		}
		for _, doc := range strings.Split(moveTimes(string(text), g.moved), "\n---\n") {
			o := g.decode(file, doc)
			version++
			objects = append(objects, cache.Loaded{Key: schema.KeyOf(o), Object: o, Version: version})
		}
	}
	g.cache.Load(objects, version)
}

func (g *golden) decode(file, doc string) schema.Object {
	var what metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(doc), &what); err != nil {
		g.t.Fatalf("%s: %v", file, err)
	}
	info, ok := schema.LookupGVK(what.GroupVersionKind())
	if !ok {
		g.t.Fatalf("%s: Pawl does not know a %s", file, what.Kind)
	}
	o := info.New()
	if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
		g.t.Fatalf("%s: %v", file, err)
	}
	return o
}

// writeConfigs writes what pawl and kubectl know the server by: contexts of both
// users, the admin's is the current one. kubectl gets the server with TLS: over
// plain HTTP it sends no token.
func (g *golden) writeConfigs(home string, open, encrypted *httptest.Server) {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: encrypted.Certificate().Raw})
	var contexts, users, pairs string
	for _, name := range []string{"admin", "viewer"} {
		g.write(filepath.Join(home, name), name)
		contexts += fmt.Sprintf("- {name: %s, server: %q, tokenFile: %q, nats: {url: \"\", credsFile: \"\"}}\n", name, open.URL, filepath.Join(home, name))
		users += fmt.Sprintf("- {name: %s, user: {token: %s}}\n", name, name)
		pairs += fmt.Sprintf("- {name: %s, context: {cluster: c, user: %s}}\n", name, name)
	}
	g.write(filepath.Join(home, "config", "pawl", "config.yaml"), "current: admin\ncontexts:\n"+contexts)
	g.write(filepath.Join(home, "kubeconfig"), "apiVersion: v1\nkind: Config\ncurrent-context: admin\nclusters:\n"+
		fmt.Sprintf("- {name: c, cluster: {server: %q, certificate-authority-data: %s}}\n", encrypted.URL, base64.StdEncoding.EncodeToString(ca))+"users:\n"+users+"contexts:\n"+pairs)
}

func (g *golden) write(path, text string) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func (g *golden) pod(k schema.PodKey) (*corev1.Pod, bool) {
	item, ok := g.cache.Get(schema.ObjectKey{Kind: schema.Pods, Namespace: k.Namespace, Name: k.Name})
	if !ok {
		return nil, false
	}
	return item.Object().(*corev1.Pod), true
}

// restart says of a pod that it ends, and leaves it as it is: every invocation
// finds the same objects.
func (g *golden) restart(_ context.Context, p schema.PodKey, _ types.UID, _ *int64) (*corev1.Pod, error) {
	pod, ok := g.pod(p)
	if !ok {
		return nil, schema.ErrNotFound
	}
	pod = pod.DeepCopy()
	now := metav1.Now()
	pod.DeletionTimestamp = &now
	return pod, nil
}

// noNodes is a cluster none of whose nodes answers.
type noNodes struct{}

// Open implements stream.Dialer.
func (noNodes) Open(_ context.Context, n schema.NodeName, _ kv.StreamRequest) (stream.Conn, error) {
	return nil, fmt.Errorf("node %s does not answer: %w", n, schema.ErrUnavailable)
}
