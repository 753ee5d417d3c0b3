package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pawl-project/pawl/reconciler/access/satoken"
	"github.com/pawl-project/pawl/schema"
)

// Service accounts: pods that ask the API in a name of their own. What a token
// says is proved by its signature; whether its pod still exists, and what the
// account may do, is asked of an Accounts with every request.

// accountKeyFile holds the key that signs the tokens of service accounts. Whoever
// has it can be every pod.
func accountKeyFile(dataDir string) string {
	return filepath.Join(dataDir, "keys", "service-account.key")
}

// Accounts knows the pods and service accounts there are now.
type Accounts interface {
	// Account says what the bearer of a token that is bound so may do; "" is
	// nothing but ask about itself. The error wraps schema.ErrNotFound when the pod
	// or the account is gone, and schema.ErrUnavailable when nobody can tell yet.
	Account(b satoken.Bound) (Role, error)
}

// accounts knows service accounts by their tokens.
type accounts struct {
	issuer *satoken.Issuer

	mu    sync.Mutex // guards what follows
	alive Accounts   // nil: nobody can tell yet
	read  map[hash]satoken.Reading
}

func openAccounts(dataDir, name string) (*accounts, error) {
	key, err := accountKey(accountKeyFile(dataDir))
	if err != nil {
		return nil, err
	}
	issuer, err := satoken.New(name, key)
	if err != nil {
		return nil, err
	}
	return &accounts{issuer: issuer, read: map[hash]satoken.Reading{}}, nil
}

// accountKey reads the key, which is made at the first start. When it is removed
// a new one is made, and all tokens that are out are wrong.
func accountKey(file string) (*ecdsa.PrivateKey, error) {
	text, err := readPrivate(file, 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return makeAccountKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the service accounts: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key: %w", file, schema.ErrRefused)
	}
	key, err := parseKey(block.Bytes)
	if err != nil || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s holds no ECDSA key on the curve P-256: %w", file, schema.ErrRefused)
	}
	return key, nil
}

func makeAccountKey(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err == nil {
		err = writePrivate(file, text)
	}
	if err != nil {
		return nil, fmt.Errorf("make the key of the service accounts: %w", err)
	}
	return key, nil
}

// mostRead bounds the memory of accounts.
const mostRead = 4096

// reading is what a token says. Good signatures are remembered: to verify one
// takes longer than to serve a request.
func (a *accounts) reading(token string) (satoken.Reading, error) {
	id := hashOf(token)
	a.mu.Lock()
	r, known := a.read[id]
	a.mu.Unlock()
	if known {
		return r, nil
	}
	r, err := a.issuer.Read(token)
	if err != nil {
		return r, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.read) >= mostRead {
		clear(a.read)
	}
	a.read[id] = r
	return r, nil
}

// bearer says whose token it is, for one of the audiences. The error wraps
// schema.ErrUnavailable when nobody can tell yet.
func (a *accounts) bearer(token string, audiences []string, now time.Time) (User, []string, error) {
	r, err := a.reading(token)
	if err != nil {
		return User{}, nil, err
	}
	common := r.For(audiences)
	if len(common) == 0 || !r.Current(now) {
		return User{}, nil, fmt.Errorf("token: it is not for this audience, or its time is not now: %w", schema.ErrRefused)
	}
	a.mu.Lock()
	alive := a.alive
	a.mu.Unlock()
	if alive == nil {
		return User{}, nil, fmt.Errorf("token: the pods are not known yet: %w", schema.ErrUnavailable)
	}
	role, err := alive.Account(r.Bound)
	if err != nil {
		return User{}, nil, err
	}
	return accountUser(r, role), common, nil
}

// accountUser is what Kubernetes calls the bearer of a token.
func accountUser(r satoken.Reading, role Role) User {
	u := newUser(r.User(), role, schema.AccountsGroup, schema.AccountsGroup+":"+r.Namespace)
	u.UID = string(r.AccountUID)
	u.Extra = map[string][]string{
		"authentication.kubernetes.io/credential-id": {"JTI=" + r.ID},
		"authentication.kubernetes.io/node-name":     {string(r.Node)},
		"authentication.kubernetes.io/pod-name":      {r.Pod},
		"authentication.kubernetes.io/pod-uid":       {string(r.PodUID)},
	}
	return u
}

// byAccount is byHeader for the tokens of service accounts.
func (a *Access) byAccount(token string) (credential, error) {
	api := []string{a.accounts.issuer.Name()}
	again := func(now time.Time) (User, bool) {
		u, _, err := a.accounts.bearer(token, api, now)
		return u, err == nil
	}
	u, _, err := a.accounts.bearer(token, api, a.o.Now())
	return credential{u, again}, err
}

// Trust tells who knows the pods and service accounts. Until it is called, and
// while nobody can tell, their tokens are answered with a pause to wait.
func (a *Access) Trust(known Accounts) {
	a.accounts.mu.Lock()
	defer a.accounts.mu.Unlock()
	a.accounts.alive = known
}

// IssueToken makes a token for a pod. audience "" is the API's.
func (a *Access) IssueToken(b satoken.Bound, audience string, life time.Duration) (schema.Token, error) {
	return a.accounts.issuer.Issue(b, audience, life, a.o.Now())
}

// ReviewToken says whose token it is and for which of the audiences it is good,
// the API's when none are given. It knows the tokens of service accounts alone: a
// person's is nobody else's business. The error says what is wrong with it.
func (a *Access) ReviewToken(token string, audiences []string) (User, []string, error) {
	if len(audiences) == 0 {
		audiences = []string{a.accounts.issuer.Name()}
	}
	return a.accounts.bearer(token, audiences, a.o.Now())
}

// RootCA is what vouches for the door to those who know nothing else, as PEM.
func (a *Access) RootCA() ([]byte, error) {
	file := a.face.caFile
	if file == "" { // one's own certificate, which every machine trusts: a pod knows no others
		file = a.o.TLS.CertFile
	}
	return os.ReadFile(file)
}

// Paths at which others learn how to read the tokens.
const (
	discoveryPath = "/.well-known/openid-configuration"
	keySetPath    = "/openid/v1/jwks"
)

// OpenID answers with what is needed to read tokens, which is no secret: whoever
// is to trust them fetches it without a credential. It is nil for other paths.
func (a *Access) OpenID(r *http.Request) http.HandlerFunc {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL.RawQuery != "" || r.ContentLength != 0 {
		return nil
	}
	kind, text := "", []byte(nil)
	switch r.URL.Path {
	case discoveryPath:
		door := a.face.remote
		if door == "" {
			door = a.face.url
		}
		kind, text = "application/json", a.accounts.issuer.Discovery(door+keySetPath)
	case keySetPath:
		kind, text = "application/jwk-set+json", a.accounts.issuer.KeySet()
	default:
		return nil
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		if _, err := w.Write(text); err != nil {
			return // the caller went away
		}
	}
}
