package access

import (
	"context"
	"slices"
)

// A Role is what a user may do; see May. The zero Role may do nothing but ask
// what it may do.
type Role string

// The roles there are.
const (
	Admin Role = "admin" // everything
	View  Role = "view"  // reads everything but secrets, and logs
)

// valid says whether r is one of the roles above.
func (r Role) valid() bool { return r == Admin || r == View }

// Group is the group that members of the role are in. In a client certificate
// it stands as the organization (O) and gives the role.
func (r Role) Group() string { return "pawl:" + string(r) }

// authenticated is the group of everybody who is known, as Kubernetes has it.
const authenticated = "system:authenticated"

// A User is a caller whose credential was right.
type User struct {
	Name   string
	Groups []string // never written to after the User was made
	Role   Role     // "" for a certificate of the cluster that names no role
	// UID and Extra are those of a service account, as Kubernetes has them: of the
	// account, and which pod asks. Never written to after the User was made.
	UID   string
	Extra map[string][]string
}

// newUser is a user of a role, with the groups of further organizations.
func newUser(name string, role Role, more ...string) User {
	groups := slices.Clone(more)
	if role != "" {
		groups = append(groups, role.Group())
	}
	groups = append(groups, authenticated)
	slices.Sort(groups)
	return User{Name: name, Groups: slices.Compact(groups), Role: role}
}

type userKey struct{}

// WithUser returns a context that carries the user of a request.
func WithUser(ctx context.Context, u User) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

// UserFrom returns the user that WithUser put there; false when nobody did, and
// then nothing may be done.
func UserFrom(ctx context.Context) (User, bool) {
	u, ok := ctx.Value(userKey{}).(User)
	return u, ok
}
