package satoken

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/pawl-project/pawl/schema"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var web = Bound{Namespace: "shop", Account: "robot", AccountUID: "uid-robot", Pod: "web-1", PodUID: "uid-web-1", Node: "n1"}

func newIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i, err := New("", key)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func issue(t testing.TB, i *Issuer, audience string) string {
	t.Helper()
	token, err := i.Issue(web, audience, time.Hour, noon)
	if err != nil {
		t.Fatal(err)
	}
	return token.Token
}

func TestATokenSaysWhatKubernetesTokensSay(t *testing.T) {
	i := newIssuer(t)
	token, err := i.Issue(web, "", time.Hour, noon.Add(400*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if !token.Issued.Equal(noon) || !token.Expires.Equal(noon.Add(time.Hour)) {
		t.Errorf("issued %v, expires %v", token.Issued, token.Expires)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token.Token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	if id, _ := got["jti"].(string); len(id) != 32 {
		t.Errorf("jti %q", id)
	}
	delete(got, "jti")
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"aud":["https://kubernetes.default.svc.cluster.local"],"exp":1795266000,"iat":1795262400,"iss":"https://kubernetes.default.svc.cluster.local",` +
		`"kubernetes.io":{"namespace":"shop","node":{"name":"n1"},"pod":{"name":"web-1","uid":"uid-web-1"},"serviceaccount":{"name":"robot","uid":"uid-robot"}},` +
		`"nbf":1795262400,"sub":"system:serviceaccount:shop:robot"}`
	if string(text) != want {
		t.Errorf("claims\n%s\nwant\n%s", text, want)
	}
	r, err := i.Read(token.Token)
	if err != nil || r.Bound != web || !slices.Equal(r.Audiences, []string{DefaultIssuer}) {
		t.Fatalf("%+v, %v", r, err)
	}
	for at, current := range map[time.Duration]bool{
		-2 * time.Minute: false, -30 * time.Second: true, 0: true, time.Hour - time.Second: true, time.Hour: false, 24 * time.Hour: false,
	} {
		if r.Current(noon.Add(at)) != current {
			t.Errorf("at %v: current %v", at, !current)
		}
	}
	if got := r.For([]string{"vault", DefaultIssuer}); !slices.Equal(got, []string{DefaultIssuer}) || r.For([]string{"vault"}) != nil {
		t.Errorf("audiences %v", got)
	}
}

// forge signs any claims with any key.
func forge(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, c any) string {
	t.Helper()
	o := &jose.SignerOptions{}
	if kid != "" {
		o = o.WithHeader("kid", kid)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(s).Claims(c).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *Issuer) claimsOf(b Bound) claims {
	return claims{
		Claims: jwt.Claims{
			Issuer: i.name, Subject: b.User(),
			Expiry: jwt.NewNumericDate(noon.Add(time.Hour)), NotBefore: jwt.NewNumericDate(noon), IssuedAt: jwt.NewNumericDate(noon),
		},
		Audiences: []string{i.name},
		Kubernetes: kubernetes{
			Namespace: b.Namespace, Node: &named{Name: string(b.Node)}, Pod: &named{Name: b.Pod, UID: b.PodUID}, Account: named{Name: b.Account, UID: b.AccountUID},
		},
	}
}

func raw(parts ...string) string {
	for i := range parts[:2] {
		parts[i] = base64.RawURLEncoding.EncodeToString([]byte(parts[i]))
	}
	return strings.Join(parts, ".")
}

func TestHostileTokensAreWrong(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	good := issue(t, i, "")
	parts := strings.Split(good, ".")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(i.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	mine := func(change func(*claims)) string {
		c := i.claimsOf(web)
		change(&c)
		return forge(t, jose.ES256, i.key, i.kid, c)
	}
	payload, err := json.Marshal(i.claimsOf(web))
	if err != nil {
		t.Fatal(err)
	}
	embedded, err := json.Marshal(jose.JSONWebKey{Key: other.key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	header := func(alg string) string { return `{"alg":"` + alg + `","kid":"` + i.kid + `"}` }
	if _, err := i.Read(mine(func(*claims) {})); err != nil {
		t.Fatalf("what is changed below is good: %v", err)
	}
	for name, token := range map[string]string{
		"empty":                         "",
		"dots":                          "..",
		"two parts":                     parts[0] + "." + parts[1],
		"four parts":                    good + ".x",
		"long":                          parts[0] + "." + strings.Repeat("A", MostBytes) + "." + parts[2],
		"algorithm none":                raw(header("none"), string(payload), ""),
		"algorithm None":                raw(header("None"), string(payload), ""),
		"none with the signature":       raw(header("none"), string(payload), parts[2]),
		"no signature":                  parts[0] + "." + parts[1] + ".",
		"a zero signature":              parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"another's claims":              parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + parts[2],
		"signed with another key":       forge(t, jose.ES256, other.key, other.kid, i.claimsOf(web)),
		"another key, this kid":         forge(t, jose.ES256, other.key, i.kid, i.claimsOf(web)),
		"this key, another kid":         forge(t, jose.ES256, i.key, other.kid, i.claimsOf(web)),
		"this key, no kid":              forge(t, jose.ES256, i.key, "", i.claimsOf(web)),
		"HMAC with the public key":      forge(t, jose.HS256, public, i.kid, i.claimsOf(web)),
		"HMAC with the kid":             forge(t, jose.HS256, []byte(i.kid), i.kid, i.claimsOf(web)),
		"RSA":                           forge(t, jose.RS256, rsaKey, i.kid, i.claimsOf(web)),
		"a key in the header":           raw(`{"alg":"ES256","kid":"`+i.kid+`","jwk":`+string(embedded)+`}`, string(payload), parts[2]),
		"a header that must be heeded":  raw(`{"alg":"ES256","kid":"`+i.kid+`","crit":["exp"]}`, string(payload), parts[2]),
		"header no JSON":                raw("x", string(payload), parts[2]),
		"another issuer":                mine(func(c *claims) { c.Issuer = "https://elsewhere" }),
		"no issuer":                     mine(func(c *claims) { c.Issuer = "" }),
		"no end":                        mine(func(c *claims) { c.Expiry = nil }),
		"no beginning":                  mine(func(c *claims) { c.NotBefore = nil }),
		"no audience":                   mine(func(c *claims) { c.Audiences = nil }),
		"no pod":                        mine(func(c *claims) { c.Kubernetes.Pod = nil }),
		"no pod uid":                    mine(func(c *claims) { c.Kubernetes.Pod.UID = "" }),
		"no node":                       mine(func(c *claims) { c.Kubernetes.Node = nil }),
		"no account":                    mine(func(c *claims) { c.Kubernetes.Account.Name = "" }),
		"no account uid":                mine(func(c *claims) { c.Kubernetes.Account.UID = "" }),
		"the subject of another":        mine(func(c *claims) { c.Subject = "system:serviceaccount:shop:admin" }),
		"a subject in other namespaces": mine(func(c *claims) { c.Subject = "system:serviceaccount:kube:robot" }),
	} {
		r, err := i.Read(token)
		if !errors.Is(err, schema.ErrRefused) || r.User() != "system:serviceaccount::" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if err != nil && len(parts[2]) > 0 && (strings.Contains(err.Error(), parts[1]) || strings.Contains(err.Error(), parts[2])) {
			t.Errorf("%s: the error repeats the token: %v", name, err)
		}
	}
}

func TestAnAudienceTooLongIsRefused(t *testing.T) {
	i := newIssuer(t)
	if _, err := i.Issue(web, strings.Repeat("a", MostBytes), time.Hour, noon); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("%v", err)
	}
}

// What others read tokens by: the key set alone.
func TestTheKeySetReadsATokenAndHoldsNoSecret(t *testing.T) {
	i := newIssuer(t)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(i.KeySet(), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 1 || !set.Keys[0].IsPublic() || strings.Contains(string(i.KeySet()), `"d"`) {
		t.Fatalf("%s", i.KeySet())
	}
	signed, err := jwt.ParseSigned(issue(t, i, "vault"), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var c jwt.Claims
	if err := signed.Claims(set, &c); err != nil || !slices.Equal(c.Audience, []string{"vault"}) {
		t.Errorf("%+v, %v", c, err)
	}
	const want = `{"issuer":"https://kubernetes.default.svc.cluster.local","jwks_uri":"https://c/openid/v1/jwks",` +
		`"response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}`
	if got := string(i.Discovery("https://c/openid/v1/jwks")); got != want {
		t.Errorf("discovery %s", got)
	}
	if i.kid == newIssuer(t).kid {
		t.Error("two keys have one name")
	}
}

// FuzzRead: whatever comes, it is refused or is what the key has signed.
func FuzzRead(f *testing.F) {
	i := newIssuer(f)
	good := issue(f, i, "")
	f.Add(good)
	f.Add(good[:len(good)-1] + "A")
	f.Add("e30.e30.")
	f.Add(raw(`{"alg":"none"}`, `{}`, ""))
	f.Add(forge(f, jose.ES256, i.key, i.kid, map[string]any{"aud": []any{1, nil}, "exp": 1e300, "kubernetes.io": 1}))
	f.Fuzz(func(t *testing.T, token string) {
		r, err := i.Read(token)
		switch {
		case err != nil && !errors.Is(err, schema.ErrRefused):
			t.Errorf("%v", err)
		case err == nil && r.Bound != web:
			t.Errorf("%q was read as %+v", token, r)
		}
	})
}

func BenchmarkIssue(b *testing.B) {
	i := newIssuer(b)
	for b.Loop() {
		issue(b, i, "")
	}
}

func BenchmarkRead(b *testing.B) {
	i := newIssuer(b)
	token := issue(b, i, "")
	for b.Loop() {
		if _, err := i.Read(token); err != nil {
			b.Fatal(err)
		}
	}
}
