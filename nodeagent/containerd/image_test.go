package containerd

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// A watchedRegistry counts what it is asked, and can be made to misbehave.
type watchedRegistry struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
	wrap  atomic.Pointer[func(w http.ResponseWriter, r *http.Request, next http.Handler)]
}

func newWatchedRegistry(t *testing.T) *watchedRegistry {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	g := &watchedRegistry{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.asked = append(g.asked, r.Method+" "+r.URL.Path)
		g.mu.Unlock()
		if f := g.wrap.Load(); f != nil {
			(*f)(w, r, inner)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *watchedRegistry) host() string { return strings.TrimPrefix(g.URL, "http://") }

func (g *watchedRegistry) behave(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	g.wrap.Store(&f)
}

// take returns what was asked since the last take.
func (g *watchedRegistry) take() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.asked
	g.asked = nil
	return was
}

// unlike makes an image that no other test has.
func unlike(t *testing.T, text string) v1.Image {
	t.Helper()
	img, err := imageOf([]imageFile{{name: "text", text: t.Name() + text, mode: 0o644}}, v1.Config{User: "7"})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (g *rig) pull(image string, policy corev1.PullPolicy, auth ...corev1.Secret) (nodeagent.Image, error) {
	return g.rt.Image(g.ctx, nodeagent.ImageRequest{Image: image, Policy: policy, Auth: auth})
}

func TestPullPolicies(t *testing.T) {
	g, reg := newRig(t), newWatchedRegistry(t)
	image := reg.host() + "/policies:1"
	first := unlike(t, "first")
	if err := push(reg.URL, "policies:1", first); err != nil {
		t.Fatal(err)
	}
	if _, err := g.pull(image, corev1.PullNever); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("Never, absent: %v", err)
	}
	img, err := g.pull(image, corev1.PullIfNotPresent)
	if err != nil || !img.Pulled || img.User != "7" || img.Bytes == 0 {
		t.Fatalf("IfNotPresent, absent: %+v, %v", img, err)
	}
	digest, err := first.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if want := reg.host() + "/policies@" + digest.String(); img.ID != want {
		t.Errorf("ID %s, want %s", img.ID, want)
	}
	reg.take()
	for _, policy := range []corev1.PullPolicy{corev1.PullNever, corev1.PullIfNotPresent} {
		if again, err := g.pull(image, policy); err != nil || again.Pulled || again.ID != img.ID {
			t.Errorf("%s, present: %+v, %v", policy, again, err)
		}
	}
	if asked := reg.take(); len(asked) > 0 {
		t.Errorf("the registry was asked %v", asked)
	}
	if again, err := g.pull(image, corev1.PullAlways); err != nil || again.Pulled {
		t.Errorf("Always, unchanged: %+v, %v", again, err)
	}
	if asked := reg.take(); len(asked) != 1 || !strings.HasPrefix(asked[0], "HEAD ") {
		t.Errorf("Always of an unchanged image asked %v, want one HEAD", asked)
	}
	if err := push(reg.URL, "policies:1", unlike(t, "second")); err != nil {
		t.Fatal(err)
	}
	if changed, err := g.pull(image, corev1.PullAlways); err != nil || !changed.Pulled || changed.ID == img.ID {
		t.Errorf("Always, changed: %+v, %v", changed, err)
	}
	byDigest, err := g.pull(reg.host()+"/policies@"+digest.String(), corev1.PullIfNotPresent)
	if err != nil || byDigest.ID != img.ID {
		t.Errorf("by digest: %+v, %v", byDigest, err)
	}
}

// However many ask for an image, it is fetched once.
func TestOnePullForAll(t *testing.T) {
	g, reg := newRig(t), newWatchedRegistry(t)
	if err := push(reg.URL, "shared:1", unlike(t, "")); err != nil {
		t.Fatal(err)
	}
	reg.take()
	gate := make(chan struct{})
	reg.behave(func(w http.ResponseWriter, r *http.Request, next http.Handler) { <-gate; next.ServeHTTP(w, r) })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := g.pull(reg.host()+"/shared:1", corev1.PullAlways); err != nil {
				t.Error(err)
			}
		})
	}
	// One that gives up does not cut off the others.
	ctx, cancel := context.WithTimeout(g.ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := g.rt.Image(ctx, nodeagent.ImageRequest{Image: reg.host() + "/shared:1", Policy: corev1.PullAlways}); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("a pull that was given up: %v", err)
	}
	close(gate)
	wg.Wait()
	fetched := map[string]int{}
	for _, a := range reg.take() {
		if strings.HasPrefix(a, "GET ") {
			fetched[a]++
		}
	}
	for what, n := range fetched {
		if n > 1 {
			t.Errorf("%s was fetched %d times", what, n)
		}
	}
}

func TestPullFailures(t *testing.T) {
	g, reg := newRig(t), newWatchedRegistry(t)
	if err := push(reg.URL, "there:1", unlike(t, "")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		image string
		class error
		says  string
		do    func(w http.ResponseWriter, r *http.Request, next http.Handler)
	}{
		"no name":        {"Not A Name", schema.ErrRefused, "Not A Name", nil},
		"no repository":  {reg.host() + "/nowhere:1", schema.ErrNotFound, "does not have it", nil},
		"no tag":         {reg.host() + "/there:2", schema.ErrNotFound, "does not have it", nil},
		"nobody listens": {"127.0.0.1:1/there:1", schema.ErrUnavailable, "connection refused", nil},
		"denied": {reg.host() + "/there:1", schema.ErrNotFound, "denied", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
		}},
		"forbidden": {reg.host() + "/there:1", schema.ErrNotFound, "denied", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "not you", http.StatusForbidden)
		}},
		"broken": {reg.host() + "/there:1", schema.ErrUnavailable, "500", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "oh no", http.StatusInternalServerError)
		}},
		"cut off": {reg.host() + "/there:1", schema.ErrUnavailable, "", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
				w.Header().Set("Content-Length", "100000")
				_, _ = w.Write([]byte("x"))
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		}},
		"corrupted": {reg.host() + "/there:1", schema.ErrRefused, "", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/blobs/") || r.Method != http.MethodGet {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			body[len(body)/2] ^= 0x55
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write(body)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.do != nil {
				reg.behave(c.do)
			} else {
				reg.behave(func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) })
			}
			_, err := g.pull(c.image, corev1.PullAlways)
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v that says %q in one line", err, c.class, c.says)
			}
		})
	}
	// After all that it can be had.
	reg.behave(func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) })
	if img, err := g.pull(reg.host()+"/there:1", corev1.PullAlways); err != nil || !img.Pulled {
		t.Errorf("%+v, %v", img, err)
	}
}

func TestPullSecrets(t *testing.T) {
	const user, password = "robot", "s3cret&odd:one"
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	g, reg := newRig(t), newWatchedRegistry(t)
	if err := push(reg.URL, "team/private:1", unlike(t, "")); err != nil {
		t.Fatal(err)
	}
	var token atomic.Bool // ask for a token instead of basic
	reg.behave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		auth := r.Header.Get("Authorization")
		switch {
		case r.URL.Path == "/token":
			if auth != basic {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, `{"token":"ticket","expires_in":300}`)
		case !token.Load() && auth == basic, token.Load() && auth == "Bearer ticket":
			next.ServeHTTP(w, r)
		case token.Load():
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, reg.URL))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	good := dockerConfig(reg.host(), user, password)
	old := corev1.Secret{Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{corev1.DockerConfigKey: []byte(fmt.Sprintf(
		`{"http://%s/team":{"auth":%q}}`, reg.host(), base64.StdEncoding.EncodeToString([]byte(user+":"+password))))}}
	for name, c := range map[string]struct {
		auth  []corev1.Secret
		works bool
	}{
		"none":          {nil, false},
		"right":         {[]corev1.Secret{good}, true},
		"old format":    {[]corev1.Secret{old}, true},
		"wrong":         {[]corev1.Secret{dockerConfig(reg.host(), user, "wrong")}, false},
		"wrong, right":  {[]corev1.Secret{dockerConfig(reg.host(), "a", "wrong"), good}, true},
		"somebody's":    {[]corev1.Secret{dockerConfig("registry.example.com", user, password)}, false},
		"another path":  {[]corev1.Secret{dockerConfig(reg.host()+"/other", user, password)}, false},
		"not a config":  {[]corev1.Secret{{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte("{")}}, good}, true},
		"of other type": {[]corev1.Secret{{Type: corev1.SecretTypeOpaque, Data: good.Data}}, false},
	} {
		for _, bearer := range []bool{false, true} {
			token.Store(bearer)
			_, err := g.pull(reg.host()+"/team/private:1", corev1.PullAlways, c.auth...)
			if c.works != (err == nil) || err != nil && !errors.Is(err, schema.ErrNotFound) {
				t.Errorf("%s (token %v): %v", name, bearer, err)
			}
			if err != nil && (strings.Contains(err.Error(), password) || strings.Contains(err.Error(), basic)) {
				t.Errorf("%s: the error tells the password: %v", name, err)
			}
		}
	}
}

func dockerConfig(host, user, password string) corev1.Secret {
	return corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{
		corev1.DockerConfigJsonKey: []byte(fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, host, user, password)),
	}}
}

func TestWhichCredentialsAreFor(t *testing.T) {
	for at, c := range map[string]struct {
		image string
		want  bool
	}{
		"https://index.docker.io/v1/":    {"docker.io/library/nginx:1", true},
		"docker.io":                      {"docker.io/library/nginx:1", true},
		"registry.example.com":           {"registry.example.com/a/b:1", true},
		"registry.example.com/a":         {"registry.example.com/a/b:1", true},
		"registry.example.com/a/b":       {"registry.example.com/a/b:1", true},
		"registry.example.com/a/bc":      {"registry.example.com/a/b:1", false},
		"*.example.com":                  {"registry.example.com/a:1", true},
		"*.example.org":                  {"registry.example.com/a:1", false},
		"*":                              {"registry.example.com/a:1", false},
		"registry.example.com:5000":      {"registry.example.com/a:1", false},
		"registry.example.com.evil.test": {"registry.example.com/a:1", false},
	} {
		got, _ := credentialsFor(c.image, []corev1.Secret{dockerConfig(at, "u", "p")})
		if (got[0].password == "p") != c.want {
			t.Errorf("%s for %s: %v, want %v", at, c.image, !c.want, c.want)
		}
	}
	close, _ := credentialsFor("r.test/a/b:1", []corev1.Secret{dockerConfig("r.test", "far", "p"), dockerConfig("r.test/a", "near", "p")})
	if len(close) != 2 || close[0].user != "near" {
		t.Errorf("the closest is not first: %+v", close)
	}
}

// A mirror is asked first, the registry itself when the mirror does not have it;
// credentials of the registry never go to the mirror.
func TestMirrors(t *testing.T) {
	g, mirror, origin := newRig(t), newWatchedRegistry(t), newWatchedRegistry(t)
	g.shut()
	g.opts.Mirrors = map[string][]string{origin.host(): {"http://127.0.0.1:1", mirror.URL}}
	g.open()
	var leaked atomic.Bool
	mirror.behave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		next.ServeHTTP(w, r)
	})
	img := unlike(t, "")
	if err := errors.Join(push(mirror.URL, "both:1", img), push(origin.URL, "both:1", img), push(origin.URL, "origin:1", unlike(t, "origin"))); err != nil {
		t.Fatal(err)
	}
	origin.take()
	auth := dockerConfig(origin.host(), "u", "p")
	if _, err := g.pull(origin.host()+"/both:1", corev1.PullAlways, auth); err != nil {
		t.Error(err)
	}
	if asked := origin.take(); len(asked) > 0 {
		t.Errorf("the registry was asked although the mirror has it: %v", asked)
	}
	if _, err := g.pull(origin.host()+"/origin:1", corev1.PullAlways, auth); err != nil {
		t.Error(err)
	}
	if leaked.Load() {
		t.Error("the mirror got the registry's credentials")
	}
}

func TestMirrorThatIsNone(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:5000", "ftp://x", "http://", "http://x?y=z"} {
		_, err := New(Options{Instance: "x", DataDir: t.TempDir(), RunDir: t.TempDir(), Mirrors: map[string][]string{"docker.io": {url}}})
		if !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"nginx":                                 "docker.io/library/nginx:latest",
		"nginx:1.7.9":                           "docker.io/library/nginx:1.7.9",
		"docker.io/nginx":                       "docker.io/library/nginx:latest",
		"a/b":                                   "docker.io/a/b:latest",
		"localhost/b:1":                         "localhost/b:1",
		"127.0.0.1:5000/a:1":                    "127.0.0.1:5000/a:1",
		"registry.k8s.io/x:v1":                  "registry.k8s.io/x:v1",
		"a:1@sha256:" + strings.Repeat("0", 64): "docker.io/library/a@sha256:" + strings.Repeat("0", 64),
	} {
		if got, err := normalize(in); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "UPPER", "a b", "a:b:c", "-x", "a@sha256:0"} {
		if got, err := normalize(in); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
}

func TestImport(t *testing.T) {
	g := newRig(t)
	img, err := busybox(v1.Config{Cmd: []string{"sh", "-c", "exit 21"}})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference("imported:7")
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := tarball.Write(ref, img, &archive); err != nil {
		t.Fatal(err)
	}
	importer, err := Dial(g.opts.Address, g.opts.Instance)
	if err != nil {
		t.Fatal(err)
	}
	defer importer.Close()
	whole := archive.Bytes()
	names, err := importer.ImportImage(g.ctx, bytes.NewReader(whole))
	if err != nil || len(names) != 1 || names[0] != "docker.io/library/imported:7" {
		t.Fatalf("%v, %v", names, err)
	}
	p := g.pod("imported")
	p.add("main").Image = "imported:7"
	if c, _ := p.run(); c.ExitCode != 21 || c.ImageID == "" {
		t.Errorf("seen %+v", c)
	}
	for what, in := range map[string][]byte{"nothing": nil, "no archive": []byte("hello"), "half of it": whole[:len(whole)/2]} {
		if names, err := importer.ImportImage(g.ctx, bytes.NewReader(in)); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%s: %v, %v", what, names, err)
		}
	}
}
