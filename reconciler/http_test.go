package reconciler

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/reconciler/access"
)

// entrance is a front door with credentials of its own, and everything it said.
type entrance struct {
	t           *testing.T
	door        frontDoor
	admin, view string
	said        bytes.Buffer // answers, headers and log lines
}

func newEntrance(t *testing.T) *entrance {
	t.Helper()
	e := &entrance{t: t}
	dir := t.TempDir()
	a, err := access.Open(access.Options{
		DataDir: dir,
		TLS:     access.TLSOptions{Listen: "127.0.0.1:0"},
		Logger:  slog.New(slog.NewTextHandler(&e.said, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	for role, to := range map[access.Role]*string{access.Admin: &e.admin, access.View: &e.view} {
		text, err := os.ReadFile(access.TokenFile(dir, role))
		if err != nil {
			t.Fatal(err)
		}
		*to = strings.TrimSpace(string(text))
	}
	e.door = frontDoor{
		access: a,
		crowd:  newCrowd(doorRoom),
		git:    a.Git(said("git")),
		ready:  func() error { return nil },
		gauges: func() []gauge { return []gauge{{"pawl_x", "X.", 1}} },
		figures: []func(io.Writer){func(w io.Writer) {
			fmt.Fprintln(w, "pawl_more 2")
		}},
	}
	return e
}

func said(what string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := access.UserFrom(r.Context())
		fmt.Fprint(w, what, " for ", u.Name)
	})
}

func (e *entrance) ask(request, token string) (int, string) {
	e.t.Helper()
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	e.door.handler().ServeHTTP(w, r)
	fmt.Fprintln(&e.said, w.Header(), w.Body)
	return w.Code, w.Body.String()
}

func TestWhoGetsWhatAtTheDoor(t *testing.T) {
	e := newEntrance(t)
	looked := 0
	e.door.lookNow = func() { looked++ }
	e.door.api = said("api")
	for request, want := range map[string][3]int{ // a stranger, a viewer, an administrator
		"GET /livez":                            {200, 200, 200},
		"HEAD /readyz":                          {200, 200, 200},
		"GET /readyz?verbose":                   {401, 200, 200},
		"GET /livez/x":                          {401, 200, 200},
		"POST /readyz":                          {401, 200, 200}, // the API's to refuse
		"GET /healthz":                          {401, 200, 200},
		"GET /":                                 {401, 200, 200},
		"GET /api/v1/pods":                      {401, 200, 200},
		"GET /nothing":                          {401, 200, 200},
		"GET /git":                              {401, 200, 200},
		"GET /git/cluster.git/info/refs":        {401, 403, 200},
		"POST /git/cluster.git/git-upload-pack": {401, 403, 200},
		"GET /metrics":                          {401, 403, 200},
		"POST /webhook":                         {401, 403, 202},
		"GET /debug/pprof/":                     {401, 403, 200},
		"GET /debug/pprof/cmdline":              {401, 403, 404}, // flags may hold a URL with a password
		"GET /debug/pprof/goroutine?debug=2":    {401, 403, 200},
	} {
		for i, token := range []string{"", e.view, e.admin} {
			code, body := e.ask(request, token)
			if code != want[i] {
				t.Errorf("%s by %d: %d %s, want %d", request, i, code, body, want[i])
			}
			if code == 401 && !strings.HasPrefix(request[strings.Index(request, "/"):], "/git/") && !strings.Contains(body, `"reason":"Unauthorized"`) {
				t.Errorf("%s: %s", request, body)
			}
		}
	}
	if looked != 1 {
		t.Errorf("looked %d times", looked)
	}
	if _, body := e.ask("GET /metrics", e.admin); !strings.Contains(body, "pawl_x 1\n") || !strings.Contains(body, "pawl_more 2\n") {
		t.Error(body)
	}
	if _, body := e.ask("GET /apis", e.view); body != "api for view" {
		t.Error(body)
	}
}

// A stranger hears that the control plane is not ready, and not why.
func TestReadinessHasNoDetailsForStrangers(t *testing.T) {
	e := newEntrance(t)
	e.door.ready = func() error { return errors.New("the disk is full") }
	for _, token := range []string{"", "a stale one"} {
		if code, body := e.ask("GET /readyz", token); code != 503 || strings.Contains(body, "disk") {
			t.Errorf("a stranger: %d %s", code, body)
		}
	}
	if code, body := e.ask("GET /readyz", e.view); code != 503 || !strings.Contains(body, "disk") {
		t.Errorf("a viewer: %d %s", code, body)
	}
	if code, body := e.ask("GET /nothing", e.admin); code != 404 || !strings.Contains(body, `"NotFound"`) {
		t.Errorf("%d %s", code, body)
	}
}

// No answer, log line or figure holds a token, whoever asks for whatever.
func TestNoTokenIsEverSaid(t *testing.T) {
	e := newEntrance(t)
	for _, token := range []string{"", e.admin, e.view, e.admin[:63], e.view + "x", "Bearer " + e.admin} {
		for _, request := range []string{"GET /" + e.admin, "GET /metrics", "GET /readyz?verbose", "GET /debug/pprof/cmdline", "GET /debug/pprof/goroutine?debug=2", "POST /webhook", "GET /git/", "GET /api"} {
			if strings.Contains(request, e.admin) && token == e.admin {
				continue // who knows it may write it into a path
			}
			e.ask(request, token)
		}
	}
	for name, secret := range map[string]string{"the administrator's": e.admin, "the viewer's": e.view, "the beginning of the": e.admin[:32]} {
		if strings.Contains(e.said.String(), secret) {
			t.Errorf("%s token was said", name)
		}
	}
}
