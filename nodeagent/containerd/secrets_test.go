package containerd

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

func TestCredentialsAsKubernetesMatchesThem(t *testing.T) {
	for at, c := range map[string]struct {
		image string
		want  bool
	}{
		"my-registry.example/images":            {"my-registry.example/images/my-image:1", true},
		"https://my-registry.example/images":    {"my-registry.example/images/another-image", true},
		"*.my-registry.example/images":          {"sub.my-registry.example/images/my-image", true},
		"*.other-registry.example/images":       {"a.sub.other-registry.example/images/my-image", false},
		"prefix.*.example":                      {"prefix.my-registry.example/x", true},
		"*-registry.example":                    {"bad-registry.example/x", true},
		"registry.example/a/b":                  {"registry.example/a/bc:1", true}, // a prefix of text, not of a path
		"registry.example/a/b/":                 {"registry.example/a/bc:1", false},
		"https://registry.example/v2/":          {"registry.example/a:1", true},
		"https://registry.example/v2/a":         {"registry.example/a:1", true},
		"https://registry.example/v1/b":         {"registry.example/a:1", false},
		"registry.example:5000":                 {"registry.example:5000/a:1", true},
		"*.example:5000":                        {"registry.example:5000/a:1", true},
		"https://index.docker.io/v1/":           {"nginx", true},
		"registry.example@sha256":               {"registry.example/a:1", false},
		"[":                                     {"registry.example/a:1", false},
		"registry.example/a@sha256:" + zeroes64: {"registry.example/a@sha256:" + zeroes64, false},
	} {
		got, _ := credentialsFor(c.image, []corev1.Secret{dockerConfig(at, "u", "p")})
		if (got[0].password == "p") != c.want {
			t.Errorf("%s for %s: %v, want %v", at, c.image, !c.want, c.want)
		}
	}
	several, _ := credentialsFor("r.test/a/b:1", []corev1.Secret{
		dockerConfig("r.test", "far1", "p"), dockerConfig("r.test/a", "near", "p"), dockerConfig("r.test", "far2", "p"), dockerConfig("r.test/a", "near", "p"),
	})
	users := ""
	for _, c := range several {
		users += c.user + " "
	}
	if users != "near far1 far2 " {
		t.Errorf("order %q", users)
	}
}

var zeroes64 = strings.Repeat("0", 64)

// A registry with tokens that expire in the midst of a pull, one that repeats
// what it was told, and nothing of a password anywhere afterwards.
func TestPasswordsStayWhereTheyAre(t *testing.T) {
	const user, password = "robot", "Pa55word&which+is:secret"
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	var logged bytes.Buffer
	g, reg := newRig(t), newWatchedRegistry(t)
	g.shut()
	g.opts.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g.open()
	if err := push(reg.URL, "team/app:1", unlike(t, "")); err != nil {
		t.Fatal(err)
	}
	var tokens, asked atomic.Int32
	reg.behave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/token" {
			_, given, _ := r.BasicAuth()
			if r.Method == http.MethodPost {
				given = r.FormValue("password")
			}
			if given != password || !strings.Contains(r.FormValue("scope"), "repository:team/app:pull") {
				http.Error(w, "no", http.StatusUnauthorized)
				return
			}
			fmt.Fprintf(w, `{"token":"ticket%d","access_token":"ticket%d","expires_in":300}`, tokens.Add(1), tokens.Load())
			return
		}
		// Each token is good for two requests only.
		if r.Header.Get("Authorization") == fmt.Sprintf("Bearer ticket%d", tokens.Load()) && asked.Add(1) <= 2*tokens.Load() {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x",scope="repository:team/app:pull",error="invalid_token"`, reg.URL))
		w.WriteHeader(http.StatusUnauthorized)
	})
	if _, err := g.pull(reg.host()+"/team/app:1", corev1.PullAlways, dockerConfig(reg.host(), user, password)); err != nil {
		t.Fatal(err)
	}
	if tokens.Load() < 2 {
		t.Errorf("the token was not renewed: %d", tokens.Load())
	}
	reg.behave(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Basic realm="x", error="bad login %s %s"`, password, basic))
		w.Header().Set("Location", reg.URL+"/?"+url.Values{"p": {password}}.Encode())
		http.Error(w, fmt.Sprintf(`{"errors":[{"code":"DENIED","message":"%s %s"}]}`, password, r.Header.Get("Authorization")), http.StatusForbidden)
	})
	_, err := g.pull(reg.host()+"/team/app:1", corev1.PullAlways, dockerConfig(reg.host(), user, password),
		corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":` + password)}})
	if !errors.Is(err, schema.ErrNotFound) || !strings.Contains(err.Error(), "is not a Docker configuration file") {
		t.Errorf("%v", err)
	}
	t.Log(err)
	g.shut()
	places := map[string]string{"the error": fmt.Sprint(err), "the log": logged.String()}
	for _, dir := range []string{testDaemon.opts.DataDir, testDaemon.opts.RunDir, g.opts.DataDir, g.opts.RunDir} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.Contains(path, "/snapshots/") {
				return nil
			}
			raw, err := os.ReadFile(path)
			places[path] = string(raw)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for where, text := range places {
		if strings.Contains(text, password) || strings.Contains(text, basic) || strings.Contains(text, "ticket1") {
			t.Errorf("%s tells the password or a token", where)
		}
	}
	g.open()
}

// What goes to a token server, or on to another address, stays encrypted.
func TestNoWayDownToPlainHTTP(t *testing.T) {
	w := newWire(pace{})
	defer w.close()
	plain := &http.Request{Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: "tokens.example"}}
	if r, err := (tokenWire{w, true}).RoundTrip(plain); !errors.Is(err, schema.ErrRefused) {
		r.Body.Close()
		t.Errorf("a token over plain http: %v", err)
	}
	plain.Response = &http.Response{Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "registry.example"}}}
	if r, err := w.RoundTrip(plain); !errors.Is(err, schema.ErrRefused) {
		r.Body.Close()
		t.Errorf("a redirect to plain http: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-7": 0, "soon": 0, "9999999999": busyMost, "99999999999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0, now.AddDate(9, 0, 0).Format(http.TimeFormat): busyMost,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}

// FuzzPullSecret: a secret that anybody wrote yields logins that are for the
// image, or none; and a message that does not repeat it.
func FuzzPullSecret(f *testing.F) {
	f.Add([]byte(`{"auths":{"registry.example/a":{"auth":"dTpw"}}}`), "registry.example/a/b:1", true)
	f.Add([]byte(`{"https://index.docker.io/v1/":{"username":"u","password":"p"}}`), "nginx", false)
	f.Add([]byte(`{"auths":{"*.example":{"identitytoken":"t"},"[":{"auth":"%"}}}`), "a.example/x@sha256:00", true)
	f.Add([]byte(`{"auths":null}`), "", true)
	f.Fuzz(func(t *testing.T, raw []byte, image string, modern bool) {
		s := corev1.Secret{Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{corev1.DockerConfigKey: raw}}
		if modern {
			s = corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: raw}}
		}
		list, faults := credentialsFor(image, []corev1.Secret{s, s})
		if len(list) == 0 || len(list) > maxCredentials {
			t.Fatalf("%d credentials", len(list))
		}
		for _, c := range list {
			if c == (credentials{}) {
				continue
			}
			if name, err := normalize(image); err == nil && !strings.HasPrefix(name, c.registry+"/") {
				t.Errorf("credentials for %s are tried for %s", c.registry, name)
			}
			if err := secretless(fmt.Errorf("said %s: %w", c.password, schema.ErrRefused), list); len(c.password) > 3 && strings.Contains(err.Error(), c.password) && !strings.Contains("said ***: refused", c.password) {
				t.Errorf("%q tells the password", err)
			}
		}
		for _, fault := range faults {
			if len(raw) > 40 && strings.Contains(fault, string(raw)) {
				t.Errorf("%q repeats the secret", fault)
			}
		}
	})
}

// FuzzRegistryMessage: what a registry says comes out as one line, bounded.
func FuzzRegistryMessage(f *testing.F) {
	f.Add("Get \"https://u:p@r.example/v2/x?sig=1\": no\n", "7")
	f.Add(strings.Repeat("\xb0x", 500), "x")
	f.Fuzz(func(t *testing.T, text, header string) {
		out := oneLine(errors.New(text))
		if strings.ContainsAny(out, "\n\r\x1b\x00") || len(out) > maxMessage+len(" …") || !utf8.ValidString(out) {
			t.Errorf("%q", out)
		}
		if d := retryAfter(header, time.Unix(1e9, 0)); d < 0 || d > busyMost {
			t.Errorf("%q: %v", header, d)
		}
	})
}
