package satoken

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/pawl-project/pawl/schema"
)

// nearFuture is how much later than now a token may have been issued: a clock
// may have been set back a little.
const nearFuture = time.Minute

// A Reading is what a good token says.
type Reading struct {
	Bound
	Audiences []string
	ID        string // of the token, for records
	Begins    time.Time
	Expires   time.Time
}

// For says whether the token is meant for one of the audiences, and for which.
func (r Reading) For(audiences []string) []string {
	var common []string
	for _, a := range audiences {
		if slices.Contains(r.Audiences, a) {
			common = append(common, a)
		}
	}
	return common
}

// Current says whether the token's time has come and is not over.
func (r Reading) Current(now time.Time) bool {
	return now.Before(r.Expires) && !now.Add(nearFuture).Before(r.Begins)
}

// Looks says whether a text has the form of a token of this kind: no other
// credential of Pawl's has dots.
func Looks(token string) bool { return strings.Count(token, ".") == 2 }

// Read returns what a token of this issuer says. Its time and audience are the
// caller's to look at. The error says what is wrong, and repeats nothing of it.
func (i *Issuer) Read(token string) (Reading, error) {
	bad := func(why string) (Reading, error) {
		return Reading{}, fmt.Errorf("token: %s: %w", why, schema.ErrRefused)
	}
	if len(token) > MostBytes || !Looks(token) {
		return bad("is none")
	}
	signed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return bad("cannot be read")
	}
	if len(signed.Headers) != 1 || signed.Headers[0].KeyID != i.kid {
		return bad("another key signed it")
	}
	var c claims
	if err := signed.Claims(i.key.Public(), &c); err != nil {
		return bad("its signature is wrong")
	}
	if err := c.check(i.name); err != nil {
		return bad(err.Error())
	}
	return Reading{
		Bound: Bound{
			Namespace: c.Kubernetes.Namespace, Account: c.Kubernetes.Account.Name, AccountUID: c.Kubernetes.Account.UID,
			Pod: c.Kubernetes.Pod.Name, PodUID: c.Kubernetes.Pod.UID, Node: schema.NodeName(c.Kubernetes.Node.Name),
		},
		Audiences: c.Audiences, ID: c.ID, Begins: c.NotBefore.Time(), Expires: c.Expiry.Time(),
	}, nil
}

// check wants everything that a token of this issuer has. Only one with the
// key could have left it out, but a token without an end would be for ever.
func (c *claims) check(issuer string) error {
	k := &c.Kubernetes
	switch {
	case c.Issuer != issuer:
		return errors.New("another issuer made it")
	case c.Expiry == nil || c.NotBefore == nil || c.IssuedAt == nil || len(c.Audiences) == 0:
		return errors.New("it has no end, no beginning or no audience")
	case k.Pod == nil || k.Node == nil:
		return errors.New("it is bound to no pod")
	case k.Namespace == "" || k.Account.Name == "" || k.Account.UID == "" || k.Pod.Name == "" || k.Pod.UID == "" || k.Node.Name == "":
		return errors.New("it does not say whose it is")
	case c.Subject != schema.AccountUser(k.Namespace, k.Account.Name):
		return errors.New("its subject is not its service account")
	}
	return nil
}
