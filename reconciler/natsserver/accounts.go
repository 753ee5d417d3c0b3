package natsserver

import (
	"fmt"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// The fence. NATS checks where a client publishes, but never the reply subject
// it names: a client that may publish to any JetStream API subject can have the
// server write or delete anything in the account, with the answer to an innocent
// request. So no list of permissions makes an account with JetStream safe for
// a node, and there are two:
//
//	CONTROL  JetStream. The reconciler and operators, who may do everything in it.
//	NODES    no JetStream, no imports, no exports. Agents, each with its own
//	         subjects, and the gateway, which checks what the server does not.
//
// SYS is the server's own; nobody has credentials for it.

// maxNodeSubscriptions is far above the handful an agent makes.
const maxNodeSubscriptions = 64

// accounts is what the server needs to know of them.
type accounts struct {
	operators []*jwt.OperatorClaims
	system    string // public keys
	control   string
	resolver  *server.MemAccResolver
}

func newAccounts(k *keys) (*accounts, error) {
	operator := jwt.NewOperatorClaims(k.operator.public)
	operator.Name = "pawl"
	operator.SystemAccount = k.system.public
	text, err := operator.Encode(k.operator.pair)
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	if operator, err = jwt.DecodeOperatorClaims(text); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	a := &accounts{
		operators: []*jwt.OperatorClaims{operator},
		system:    k.system.public,
		control:   k.control.public,
		resolver:  &server.MemAccResolver{},
	}
	for _, c := range []*jwt.AccountClaims{systemAccount(k), controlAccount(k), nodesAccount(k)} {
		text, err := c.Encode(k.operator.pair)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", c.Name, err)
		}
		if err := a.resolver.Store(c.Subject, text); err != nil {
			return nil, fmt.Errorf("account %s: %w", c.Name, err)
		}
	}
	return a, nil
}

func systemAccount(k *keys) *jwt.AccountClaims {
	c := jwt.NewAccountClaims(k.system.public)
	c.Name = "SYS"
	return c
}

func controlAccount(k *keys) *jwt.AccountClaims {
	c := jwt.NewAccountClaims(k.control.public)
	c.Name = "CONTROL"
	c.Limits.DisallowBearer = true
	c.Limits.Imports, c.Limits.Exports = 0, 0
	c.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, // the server's own limits hold
		Streams: jwt.NoLimit, Consumer: jwt.NoLimit, MaxAckPending: jwt.NoLimit,
	}
	return c
}

func nodesAccount(k *keys) *jwt.AccountClaims {
	c := jwt.NewAccountClaims(k.nodes.public)
	c.Name = "NODES"
	c.Limits.DisallowBearer = true
	c.Limits.Imports, c.Limits.Exports = 0, 0
	// Who is signed with the account's own key and names no permissions has none.
	c.DefaultPermissions.Pub.Deny.Add(">")
	c.DefaultPermissions.Sub.Deny.Add(">")
	node := jwt.NewUserScope()
	node.Key = k.signing.public
	node.Role = "node"
	node.Description = "one node's agent, named by its tag node:<name>"
	node.Template.Limits.Subs = maxNodeSubscriptions
	node.Template.Limits.Payload = kv.MaxMessage
	node.Template.Pub.Allow.Add("pawl.up.{{tag(node)}}.>")
	node.Template.Sub.Allow.Add("_INBOX.{{tag(node)}}.>", "pawl.down.{{tag(node)}}.>")
	c.SigningKeys.AddScopedSigner(node)
	return c
}

// ControlCredentials opens everything in CONTROL: for the reconciler and operators.
func (s *Server) ControlCredentials() (kv.Credentials, error) {
	return newUser("operator", s.keys.control, nil)
}

// GatewayCredentials opens the gateway's side of NODES: it hears every node
// and speaks to every node, and has no store.
func (s *Server) GatewayCredentials() (kv.Credentials, error) {
	return newUser("gateway", s.keys.nodes, func(c *jwt.UserClaims) {
		c.Pub.Allow.Add("pawl.down.>", "_INBOX.>")
		c.Sub.Allow.Add("pawl.up.>", "_INBOX.>")
	})
}

// NodeCredentials opens one node's side of NODES. They do not expire. An error
// wraps schema.ErrRefused when n cannot name a node: a tag such as "*" would
// open every node's subjects.
func (s *Server) NodeCredentials(n schema.NodeName) (kv.Credentials, error) {
	if err := n.Validate(); err != nil {
		return kv.Credentials{}, err
	}
	return newUser("node "+string(n), s.keys.signing, func(c *jwt.UserClaims) {
		c.SetScoped(true) // the signing key's template says what a node may do
		c.IssuerAccount = s.keys.nodes.public
		c.Tags.Add("node:" + string(n))
	})
}

// newUser makes a user with a key of its own, which is kept nowhere else.
func newUser(name string, signer key, shape func(*jwt.UserClaims)) (kv.Credentials, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return kv.Credentials{}, fmt.Errorf("user %s: %w", name, err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return kv.Credentials{}, fmt.Errorf("user %s: %w", name, err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return kv.Credentials{}, fmt.Errorf("user %s: %w", name, err)
	}
	claims := jwt.NewUserClaims(public)
	claims.Name = name
	if shape != nil {
		shape(claims)
	}
	text, err := claims.Encode(signer.pair)
	if err != nil {
		return kv.Credentials{}, fmt.Errorf("user %s: %w", name, err)
	}
	return kv.Credentials{JWT: text, Seed: string(seed)}, nil
}
