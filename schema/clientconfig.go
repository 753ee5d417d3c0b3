package schema

// A ClientConfig is the file from which `pawl` knows its clusters:
// $XDG_CONFIG_HOME/pawl/config.yaml, written by `pawld up`. It holds no
// credential, only where they lie.
type ClientConfig struct {
	Current  string          `json:"current"` // name of the context used without --context
	Contexts []ClientContext `json:"contexts"`
}

// A ClientContext says how to reach one cluster.
type ClientContext struct {
	Name       string           `json:"name"`
	Instance   string           `json:"instance,omitempty"`   // which of a machine's instances wrote it
	Server     string           `json:"server"`               // http://host:port or https://host:port
	TokenFile  string           `json:"tokenFile"`            // holds the token for Server
	CAFile     string           `json:"caFile,omitempty"`     // certificates that vouch for Server over TLS; "": those the machine trusts
	Repository string           `json:"repository,omitempty"` // where desired state is pushed
	Branch     string           `json:"branch,omitempty"`     // the deployed one
	NATS       ClientNATS       `json:"nats"`
	Containerd ClientContainerd `json:"containerd,omitempty"`
}

// ClientNATS says how to read the store.
type ClientNATS struct {
	URL       string `json:"url"`
	CredsFile string `json:"credsFile"`
}

// ClientContainerd says where the containerd of the node on this machine
// listens, for verbs about its images.
type ClientContainerd struct {
	Address string `json:"address,omitempty"`
	// Instance is the label by which a shared containerd tells Pawl's instances apart.
	Instance string `json:"instance,omitempty"`
}

// Context finds a context by name, the current one for "".
func (c *ClientConfig) Context(name string) (ClientContext, bool) {
	if name == "" {
		name = c.Current
	}
	for _, x := range c.Contexts {
		if x.Name == name {
			return x, true
		}
	}
	return ClientContext{}, false
}

// Set adds a context or replaces the one of its name, and makes it current when
// there is no current one.
func (c *ClientConfig) Set(x ClientContext) {
	if c.Current == "" {
		c.Current = x.Name
	}
	for i := range c.Contexts {
		if c.Contexts[i].Name == x.Name {
			c.Contexts[i] = x
			return
		}
	}
	c.Contexts = append(c.Contexts, x)
}
