package access

import (
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/pawl-project/pawl/reconciler/access/satoken"
	"github.com/pawl-project/pawl/schema"
)

// Options says where an Access finds its credentials.
type Options struct {
	DataDir string // the instance's: tokens and keys lie there
	TLS     TLSOptions
	Issuer  string           // of service accounts' tokens; "": satoken.DefaultIssuer
	Now     func() time.Time // nil means time.Now
	Logger  *slog.Logger     // nil means slog.Default()
}

// An Access knows who may come in. It is safe for use by many goroutines.
type Access struct {
	o        Options
	fixed    []secret // the administrator's and the viewer's token
	people   *people
	certs    *certs
	accounts *accounts
	face     face
	wrong    *attempts
	log      *slog.Logger
}

// Open reads the credentials of an instance and makes those that are missing.
// It starts nothing.
func Open(o Options) (*Access, error) {
	if o.DataDir == "" {
		return nil, errors.New("access: DataDir is needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	ca, err := openAuthority(o.DataDir, o.Now())
	if err != nil {
		return nil, err
	}
	pods, err := openAccounts(o.DataDir, o.Issuer)
	if err != nil {
		return nil, err
	}
	f, err := openFace(o, ca)
	if err != nil {
		return nil, err
	}
	a := &Access{
		o:        o,
		people:   newPeople(PeopleFile(o.DataDir), o.Logger),
		certs:    newCerts(ca),
		accounts: pods,
		face:     f,
		wrong:    newAttempts(o.Now),
		log:      o.Logger,
	}
	for _, role := range []Role{Admin, View} {
		token, err := LoadToken(TokenFile(o.DataDir, role))
		if err != nil {
			return nil, err
		}
		a.fixed = append(a.fixed, secret{user: newUser(string(role), role), hash: hashOf(token)})
	}
	return a, nil
}

// TokenFile holds the token of a role that is made at the first start.
func TokenFile(dataDir string, r Role) string {
	if r == View {
		return filepath.Join(dataDir, "token-view")
	}
	return filepath.Join(dataDir, "token")
}

// PeopleFile holds the hashes of the named tokens.
func PeopleFile(dataDir string) string { return filepath.Join(dataDir, "tokens") }

// Authenticate says whose request it is; false when it carries no credential
// or a wrong one. It never waits.
func (a *Access) Authenticate(r *http.Request) (User, bool) {
	c, found := a.identify(r)
	return c.user, found == right
}

// A credential is one that was right.
type credential struct {
	user User
	// again says whose it is now: it may have ended or been revoked since. nil
	// for one that is good for as long as the daemon runs.
	again func(now time.Time) (User, bool)
}

// still says whether the credential is what it was.
func (c credential) still(now time.Time) bool {
	u, ok := c.again(now)
	return ok && u.Role == c.user.Role
}

// A finding is what was found out about a request's credential.
type finding int

const (
	none    finding = iota // no credential was given
	wrong                  // one was given that opens nothing
	unknown                // one was given of which nobody can tell yet
	right
)

// identify looks at the Authorization header, which wins as the more deliberate
// of the two, and else at the client certificate.
func (a *Access) identify(r *http.Request) (credential, finding) {
	c, given, err := a.byHeader(r)
	if !given {
		c, given = a.byCertificate(r)
	}
	switch {
	case !given:
		return credential{}, none
	case errors.Is(err, schema.ErrUnavailable):
		return credential{}, unknown
	case c.user.Name == "":
		return credential{}, wrong
	default:
		return c, right
	}
}

// byHeader returns a credential without a user for a wrong one, and so does
// byCertificate. The error says why a token of a service account is none.
func (a *Access) byHeader(r *http.Request) (c credential, given bool, err error) {
	token, given := bearer(r)
	if token == "" {
		return credential{}, given, nil
	}
	hash := hashOf(token)
	for _, s := range a.fixed { // first: one of somebody's own may look like any other
		if s.hash.equal(hash) {
			return credential{user: s.user}, true, nil
		}
	}
	if satoken.Looks(token) {
		c, err = a.byAccount(token)
		return c, true, err
	}
	again := func(now time.Time) (User, bool) { return a.people.find(hash, now) }
	u, _ := again(a.o.Now())
	return credential{u, again}, true, nil
}

func (a *Access) byCertificate(r *http.Request) (c credential, given bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return credential{}, false
	}
	cert := r.TLS.PeerCertificates[0]
	again := func(now time.Time) (User, bool) { return a.certs.find(cert, now) }
	u, _ := again(a.o.Now())
	return credential{u, again}, true
}
