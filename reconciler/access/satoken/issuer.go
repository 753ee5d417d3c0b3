package satoken

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// DefaultIssuer is the issuer's name when none is configured: the one that most
// clusters of Kubernetes have.
const DefaultIssuer = "https://kubernetes.default.svc.cluster.local"

// MostBytes bounds a token. One of ours has some 900 bytes and its audience.
const MostBytes = 8 << 10

// A Bound is what a token is bound to: it is worth nothing without them.
type Bound struct {
	Namespace  string
	Account    string
	AccountUID types.UID
	Pod        string
	PodUID     types.UID
	Node       schema.NodeName
}

// PodKey is the pod that has the token.
func (b Bound) PodKey() schema.PodKey {
	return schema.PodKey{Namespace: b.Namespace, Name: b.Pod}
}

// User is what the API calls the token's bearer.
func (b Bound) User() string { return schema.AccountUser(b.Namespace, b.Account) }

// claims are those of Kubernetes' bound tokens.
type claims struct {
	jwt.Claims
	// Audiences is a list even with one member, as in Kubernetes; it hides the
	// Claims' own, which would be a text then.
	Audiences  []string   `json:"aud"`
	Kubernetes kubernetes `json:"kubernetes.io"`
}

type kubernetes struct {
	Namespace string `json:"namespace"`
	Node      *named `json:"node,omitempty"`
	Pod       *named `json:"pod,omitempty"`
	Account   named  `json:"serviceaccount"`
}

type named struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid,omitempty"`
}

// An Issuer makes and reads tokens with one key. It is safe for use by many
// goroutines.
type Issuer struct {
	name   string
	key    *ecdsa.PrivateKey
	kid    string
	signer jose.Signer
	set    []byte
}

// New returns an Issuer of that name with a key on the curve P-256.
func New(name string, key *ecdsa.PrivateKey) (*Issuer, error) {
	if name == "" {
		name = DefaultIssuer
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("key of the tokens: %w", err)
	}
	id := sha256.Sum256(public)
	i := &Issuer{name: name, key: key, kid: base64.RawURLEncoding.EncodeToString(id[:])}
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: i.kid}}, nil)
	if err != nil {
		return nil, fmt.Errorf("key of the tokens: %w", err)
	}
	i.set, err = json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: i.kid, Algorithm: string(jose.ES256), Use: "sig"}}})
	return i, err
}

// Name is the issuer in the tokens, and the audience of those for the API.
func (i *Issuer) Name() string { return i.name }

// Issue makes a token for one audience, "" being the API.
func (i *Issuer) Issue(b Bound, audience string, life time.Duration, now time.Time) (schema.Token, error) {
	if audience == "" {
		audience = i.name
	}
	now = now.UTC().Truncate(time.Second)
	end := now.Add(life)
	var id [16]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	text, err := jwt.Signed(i.signer).Claims(claims{
		Claims: jwt.Claims{
			Issuer: i.name, Subject: b.User(), ID: hex.EncodeToString(id[:]),
			Expiry: jwt.NewNumericDate(end), NotBefore: jwt.NewNumericDate(now), IssuedAt: jwt.NewNumericDate(now),
		},
		Audiences: []string{audience},
		Kubernetes: kubernetes{
			Namespace: b.Namespace,
			Node:      &named{Name: string(b.Node)},
			Pod:       &named{Name: b.Pod, UID: b.PodUID},
			Account:   named{Name: b.Account, UID: b.AccountUID},
		},
	}).Serialize()
	if err != nil {
		return schema.Token{}, fmt.Errorf("sign a token: %w", err)
	}
	if len(text) > MostBytes {
		return schema.Token{}, fmt.Errorf("the token would have %d bytes, the limit is %d: shorten its audience: %w", len(text), MostBytes, schema.ErrRefused)
	}
	return schema.Token{Token: text, Issued: now, Expires: end}, nil
}

// KeySet is the public key as RFC 7517 has it, for others who read tokens.
func (i *Issuer) KeySet() []byte { return i.set }

// Discovery is OpenID's description of the issuer; keys is where KeySet is served.
func (i *Issuer) Discovery(keys string) []byte {
	text, err := json.Marshal(struct {
		Issuer     string   `json:"issuer"`
		Keys       string   `json:"jwks_uri"`
		Responses  []string `json:"response_types_supported"`
		Subjects   []string `json:"subject_types_supported"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}{i.name, keys, []string{"id_token"}, []string{"public"}, []string{string(jose.ES256)}})
	if err != nil { // strings can always be written
		panic(err)
	}
	return text
}
