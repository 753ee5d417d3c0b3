package reconciler

import (
	"log/slog"
	"time"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema/kv"
)

// Config is everything Run needs; nothing is read from the environment.
type Config struct {
	DataDir string // the built-in repository, keys and token live below it
	RunDir  string // sockets and files that need not outlive the machine's uptime
	HTTP    string // host:port to listen on

	Access *access.Access // who may come in at HTTP, and how the connection is secured

	Control kv.ConnOptions // a connection to the account that has JetStream
	Nodes   kv.ConnOptions // a connection to the account of the node agents

	Git     Git
	Version string // of Pawl, for people
	Logger  *slog.Logger
}

// Git says where the desired state comes from.
type Git struct {
	URL             string // of a remote repository; "": the built-in one
	Branch          string
	Path            string        // the folder of the tree that is deployed; "": all of it
	Interval        time.Duration // between looks at a remote repository
	CredentialsFile string
}
