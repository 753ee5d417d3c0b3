package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

// A server gives canned answers by method and path, and remembers what it was asked.
type server struct {
	*httptest.Server
	token string

	mu      sync.Mutex
	answers map[string]answer
	asked   []string
}

type answer struct {
	status int // 0: 200
	body   string
	header map[string]string
}

const token = "sesame"

// newServer answers discovery, and /version.
func newServer(t *testing.T) *server {
	t.Helper()
	s := unstarted()
	s.start(t)
	return s
}

func (s *server) start(t testing.TB) {
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
}

func unstarted() *server {
	return &server{token: token, answers: map[string]answer{
		"GET /api":     {body: aggregated(group("", "v1", "pods:Pod:po", "events:Event:ev", "configmaps:ConfigMap:cm", "!nodes:Node:no", "!namespaces:Namespace:ns")), header: map[string]string{"Content-Type": aggregatedType}},
		"GET /apis":    {body: aggregated(group("apps", "v1", "deployments:Deployment:deploy", "replicasets:ReplicaSet:rs"), group("pawl.dev", "v1", "!revisions:Revision:rev")), header: map[string]string{"Content-Type": aggregatedType}},
		"GET /version": {body: `{"major": "1", "minor": "37", "gitVersion": "v1.37.0+pawl"}`},
	}}
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	a, ok := s.answers[r.Method+" "+r.URL.Path]
	switch {
	case r.Header.Get("Authorization") != "Bearer "+s.token:
		a = answer{status: http.StatusUnauthorized, body: status(http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")}
	case !ok:
		a = answer{status: http.StatusNotFound, body: status(http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")}
	}
	w.Header().Set("Content-Type", "application/json")
	for k, v := range a.header {
		w.Header().Set(k, v)
	}
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	_, _ = w.Write([]byte(a.body))
}

// on sets the answer to a method and path.
func (s *server) on(request, body string) { s.answer(request, answer{body: body}) }

func (s *server) answer(request string, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[request] = a
}

func (s *server) refuse(request string, code int, reason metav1.StatusReason, message string) {
	s.answer(request, answer{status: code, body: status(code, reason, message)})
}

// forget returns what was asked since it was last called.
func (s *server) forget() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	slices.Sort(asked)
	return asked
}

func status(code int, reason metav1.StatusReason, message string) string {
	return encoded(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
}

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func aggregated(groups ...map[string]any) string {
	return encoded(map[string]any{"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": map[string]any{}, "items": groups})
}

// group is a group's discovery; resources are plural:Kind:short, "!" for cluster scope.
func group(name, version string, resources ...string) map[string]any {
	var out []map[string]any
	for _, r := range resources {
		scope := "Namespaced"
		if cut, ok := strings.CutPrefix(r, "!"); ok {
			r, scope = cut, "Cluster"
		}
		parts := strings.Split(r, ":")
		out = append(out, map[string]any{
			"resource": parts[0], "scope": scope, "singularResource": strings.ToLower(parts[1]), "shortNames": parts[2:],
			"responseKind": map[string]string{"group": name, "version": version, "kind": parts[1]},
			"verbs":        []string{"delete", "get", "list", "watch"},
		})
	}
	return map[string]any{
		"metadata": map[string]any{"name": name},
		"versions": []map[string]any{{"version": version, "resources": out}},
	}
}

func encoded(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// A desk is a person's machine: a home with a context for a server.
type desk struct {
	t    testing.TB
	home string
	env  map[string]string
}

func newDesk(t testing.TB, url string) *desk {
	t.Helper()
	home := t.TempDir()
	d := &desk{t: t, home: home, env: map[string]string{"HOME": home}}
	tokenFile := filepath.Join(home, "token")
	if err := os.WriteFile(tokenFile, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if url != "" {
		d.configure(schema.ClientConfig{Current: "pawl", Contexts: []schema.ClientContext{
			{Name: "pawl", Server: url, TokenFile: tokenFile, Repository: url + "/git/cluster.git"},
		}})
	}
	return d
}

func (d *desk) file() string { return filepath.Join(d.home, ".config", "pawl", "config.yaml") }

func (d *desk) configure(config schema.ClientConfig) {
	d.t.Helper()
	text, err := yaml.Marshal(config)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := replaceFile(d.file(), text); err != nil {
		d.t.Fatal(err)
	}
}

// pawl runs one command line as main does.
func (d *desk) pawl(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	var out, errs bytes.Buffer
	code = run(args, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errs}, func(name string) string { return d.env[name] })
	return out.String(), errs.String(), code
}

// process runs one command line in a process of its own, for commands that end theirs.
func (d *desk) process(line string) (stdout, stderr string, code int) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), os.Args[0])
	cmd.Env = []string{"HOME=" + d.home, "PAWL_TEST_LINE=" + line}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		d.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// wants runs a command line and compares all that it gives.
func (d *desk) wants(line, stdout, stderr string, code int) {
	d.t.Helper()
	out, errs, got := d.pawl(strings.Fields(line)...)
	if out != stdout || errs != stderr || got != code {
		d.t.Errorf("pawl %s\nprints %q\nwant   %q\nsays   %q\nwant   %q\nexit code %d, want %d", line, out, stdout, errs, stderr, got, code)
	}
}

// quietLog drops what a test's server says of clients that do not trust it.
func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }
