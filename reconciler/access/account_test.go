package access

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-project/pawl/reconciler/access/satoken"
	"github.com/pawl-project/pawl/schema"
)

var web = satoken.Bound{Namespace: "shop", Account: "robot", AccountUID: "uid-robot", Pod: "web-1", PodUID: "uid-web-1", Node: "n1"}

// living are the pods there are, with their accounts' roles.
type living struct {
	mu   sync.Mutex
	pods map[satoken.Bound]Role
	err  error // of every question
}

func (l *living) Account(b satoken.Bound) (Role, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	role, ok := l.pods[b]
	switch {
	case l.err != nil:
		return "", l.err
	case !ok:
		return "", fmt.Errorf("pod %s: %w", b.Pod, schema.ErrNotFound)
	}
	return role, nil
}

func (l *living) set(change func(*living)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

func (r *rig) podToken(b satoken.Bound, audience string) string {
	r.t.Helper()
	token, err := r.IssueToken(b, audience, time.Hour)
	if err != nil {
		r.t.Fatal(err)
	}
	return token.Token
}

func TestAPodComesInUntilItIsGoneOrItsTokenEnds(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	pods := &living{pods: map[satoken.Bound]Role{web: ""}}
	client, url := r.client(nil), r.serve(r.Guard(whoami))
	token := r.podToken(web, "")
	ask := func(want int, what string) string {
		t.Helper()
		code, body := r.get(client, url, "Bearer "+token)
		if code != want || strings.Contains(body, token) {
			t.Errorf("%s: %d %s", what, code, body)
		}
		r.now.forward(time.Second) // another test is about the pace
		return body
	}

	ask(503, "before anybody knows the pods")
	r.Trust(pods)
	const groups = "system:authenticated,system:serviceaccounts,system:serviceaccounts:shop"
	if body := ask(200, "a pod that is"); body != "system:serviceaccount:shop:robot  "+groups {
		t.Errorf("%s", body)
	}
	pods.set(func(l *living) { l.pods[web] = View })
	if body := ask(200, "with a role"); body != "system:serviceaccount:shop:robot view pawl:view,"+groups {
		t.Errorf("%s", body)
	}
	pods.set(func(l *living) { l.err = fmt.Errorf("views: %w", schema.ErrUnavailable) })
	ask(503, "while nobody can tell")
	pods.set(func(l *living) { l.err = nil; delete(l.pods, web) })
	ask(401, "a pod that is gone")
	pods.set(func(l *living) { l.pods[web] = "" })
	r.now.forward(time.Hour)
	ask(401, "after its end")
	if strings.Contains(r.log.String(), token[:40]) {
		t.Error("the token is in the log")
	}
}

func TestATokenForOthersIsNoneHere(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	r.Trust(&living{pods: map[satoken.Bound]Role{web: Admin}})
	elsewhere := newRig(t, "127.0.0.1:0") // another cluster, with the same names
	client, url := r.client(nil), r.serve(r.Guard(whoami))
	for name, token := range map[string]string{
		"another audience": r.podToken(web, "vault"),
		"another cluster":  elsewhere.podToken(web, ""),
		"no signature":     strings.Join(strings.Split(r.podToken(web, ""), ".")[:2], ".") + ".",
	} {
		if code, body := r.get(client, url, "Bearer "+token); code != 401 {
			t.Errorf("%s: %d %s", name, code, body)
		}
		r.now.forward(time.Second)
	}
	if u, audiences, err := r.ReviewToken(r.podToken(web, "vault"), []string{"x", "vault"}); err != nil || u.Name != web.User() || !slices.Equal(audiences, []string{"vault"}) {
		t.Errorf("for whom it is meant: %+v %v %v", u, audiences, err)
	}
	if _, _, err := r.ReviewToken(r.podToken(web, "vault"), nil); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("for the API: %v", err)
	}
	if _, _, err := r.ReviewToken(r.token(Admin), nil); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a person's token: %v", err)
	}
}

func TestAnAccountWithoutARoleMayAskAboutItself(t *testing.T) {
	u := accountUser(satoken.Reading{Bound: web, ID: "j"}, "")
	for _, a := range []Attributes{
		{Verb: "get", Path: "/version"}, {Verb: "get", Path: "/apis"},
		{Verb: "create", Group: "authentication.k8s.io", Resource: "selfsubjectreviews"},
		{Verb: "create", Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
	} {
		if ok, why := u.May(a); !ok {
			t.Errorf("%+v: %s", a, why)
		}
	}
	for _, a := range []Attributes{
		{Verb: "list", Resource: "pods", Namespace: "shop"}, {Verb: "get", Resource: "secrets", Namespace: "shop", Name: "x"},
		{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"}, {Verb: "get", Path: "/metrics"},
	} {
		if ok, _ := u.May(a); ok {
			t.Errorf("may %+v", a)
		}
	}
	if u.UID != "uid-robot" || u.Extra["authentication.kubernetes.io/pod-uid"][0] != "uid-web-1" {
		t.Errorf("%+v", u)
	}
}

// A request that lasts ends with the pod.
func TestAWatchEndsWithThePod(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, err := Open(Options{DataDir: dir, TLS: TLSOptions{Listen: "127.0.0.1:0"}})
		if err != nil {
			t.Fatal(err)
		}
		pods := &living{pods: map[satoken.Bound]Role{web: View}}
		a.Trust(pods)
		token, err := a.IssueToken(web, "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan time.Time)
		go a.Guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			ended <- time.Now()
		})).ServeHTTP(httptest.NewRecorder(), bearing(token.Token))
		began := time.Now()
		<-time.After(30 * time.Second)
		pods.set(func(l *living) { delete(l.pods, web) })
		if took := (<-ended).Sub(began); took > 30*time.Second+lookAgain {
			t.Errorf("ended after %v", took)
		}
	})
}

func bearing(token string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestTheAccountsKeyIsKeptAndPrivate(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	r.Trust(&living{pods: map[satoken.Bound]Role{web: ""}})
	token := r.podToken(web, "")
	info, err := os.Stat(accountKeyFile(r.dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	again := func() error {
		a, err := Open(r.o)
		if err != nil {
			return err
		}
		a.Trust(&living{pods: map[satoken.Bound]Role{web: ""}})
		_, _, err = a.ReviewToken(token, nil)
		return err
	}
	if err := again(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := os.Chmod(accountKeyFile(r.dir), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := again(); err == nil || !strings.Contains(err.Error(), "service-account.key") {
		t.Errorf("a key that others read: %v", err)
	}
	for _, content := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if err := writePrivate(accountKeyFile(r.dir), []byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := again(); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%q: %v", content, err)
		}
	}
	if err := os.Remove(accountKeyFile(r.dir)); err != nil {
		t.Fatal(err)
	}
	if err := again(); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a token of the key before: %v", err)
	}
}

func TestWhatReadsTokensIsOpenToAll(t *testing.T) {
	r := newRig(t, "0.0.0.0:7420")
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		q := httptest.NewRequest("GET", path, nil)
		if h := r.OpenID(q); h != nil {
			h(w, q)
			return w
		}
		return nil
	}
	if w := get("/openid/v1/jwks"); w == nil || w.Header().Get("Content-Type") != "application/jwk-set+json" || !strings.Contains(w.Body.String(), `"kty":"EC"`) {
		t.Errorf("%v", w)
	}
	if w := get("/.well-known/openid-configuration"); w == nil || !strings.Contains(w.Body.String(), r.RemoteURL()+`/openid/v1/jwks"`) {
		t.Errorf("%v", w)
	}
	for _, path := range []string{"/openid/v1", "/openid/v1/jwks/", "/openid/v1/jwks?x", "/.well-known/", "/"} {
		if get(path) != nil {
			t.Errorf("%s is answered", path)
		}
	}
	if r.OpenID(httptest.NewRequest("POST", "/openid/v1/jwks", nil)) != nil {
		t.Error("POST is answered")
	}
}

func TestTheRootCAVouchesForTheDoor(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	got, err := r.RootCA()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(CAFile(r.dir))
	if err != nil || string(got) != string(want) {
		t.Errorf("%s, %v", got, err)
	}
}
