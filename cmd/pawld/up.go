package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/containerd"
	"github.com/pawl-project/pawl/nodeagent/network"
	"github.com/pawl-project/pawl/nodeagent/volume"
	"github.com/pawl-project/pawl/reconciler"
	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/access/satoken"
	"github.com/pawl-project/pawl/reconciler/githost"
	"github.com/pawl-project/pawl/reconciler/natsserver"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// upConfig is what the flags of `pawld up` say.
type upConfig struct {
	instance
	http       string
	tls        access.TLSOptions // but for Listen, which is http
	issuer     string            // of the tokens of service accounts
	natsListen string
	node       string
	labels     []string // of the node, key=value
	taints     []string // of the node, key=value:Effect
	containerd string
	trouble    func() error // what is wrong with the private containerd; nil: it is not private
	mirrors    []string
	gcHigh     int // per cent of the images' disk
	gcLow      int
	podPids    int64 // processes a pod may have; -1: as many as the machine takes
	podCIDR    string
	git        reconciler.Git
	logLevel   string
	logFormat  string
}

func newUp() *cobra.Command {
	c := &upConfig{}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything on this machine: repository, store, reconciler and node",
		Long: `Run everything on this machine in one process: the built-in Git repository, the
embedded NATS store, the reconciler and the node agent, with a private
containerd beside it. Needs root, containerd, runc and git.

SIGTERM (or Ctrl-C) stops the daemon and leaves the containers running; the next
start takes them over. "pawld down" stops and removes them.`,
		Example: `  pawld up
  pawld up --registry-mirror docker.io=http://127.0.0.1:5000
  pawld up --http 0.0.0.0:7420 --tls-san pawl.example.org
  pawld up --git-url https://git.example.org/cluster.git --git-branch main`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := settle(cmd); err != nil {
				return err
			}
			return up(cmd.Context(), c, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	c.instance.flags(f)
	f.StringVar(&c.http, "http", "127.0.0.1:7420", "address of the front door: the API, /git/cluster.git, /webhook, /metrics; beyond loopback it speaks TLS")
	f.BoolVar(&c.tls.Force, "tls", false, "speak TLS on a loopback address too")
	f.StringArrayVar(&c.tls.Names, "tls-san", nil, "further host name or IP address by which clients reach the front door; repeatable")
	f.StringVar(&c.tls.CertFile, "tls-cert", "", "file with a certificate of your own for the front door, and its chain (PEM); read again when it changes")
	f.StringVar(&c.tls.KeyFile, "tls-key", "", "file with the key of --tls-cert (PEM)")
	f.StringVar(&c.issuer, "service-account-issuer", satoken.DefaultIssuer, "issuer in the tokens of service accounts, and their audience for the API; an https URL for others to find /.well-known/openid-configuration at")
	f.StringVar(&c.natsListen, "nats-listen", "127.0.0.1:7422", "address of the embedded NATS server, for the nats CLI")
	f.StringVar(&c.node, "node-name", "", "name of this node (default: the machine's host name)")
	f.StringSliceVar(&c.labels, "node-labels", nil, "further labels of this node, as KEY=VALUE; repeatable, or with commas between")
	f.StringSliceVar(&c.taints, "node-taints", nil, "taints of this node, as KEY=VALUE:EFFECT or KEY:EFFECT, the effect being NoSchedule, PreferNoSchedule or NoExecute; repeatable, or with commas between")
	f.StringVar(&c.containerd, "containerd", "", "address of a containerd to use (default: a private one is started)")
	f.StringArrayVar(&c.mirrors, "registry-mirror", nil, "pull images of HOST from URL instead, as HOST=URL; repeatable")
	f.IntVar(&c.gcHigh, "image-gc-high", 85, "per cent of their disk in use above which unused images are removed; 100: never")
	f.IntVar(&c.gcLow, "image-gc-low", 80, "per cent of their disk in use down to which unused images are removed")
	f.Int64Var(&c.podPids, "pod-pids-limit", -1, "processes and threads that a pod may have at a time; -1: as many as the machine takes, as in Kubernetes")
	f.StringVar(&c.podCIDR, "pod-cidr", "10.42.0.0/24", "range of the pods' addresses on this node")
	f.StringVar(&c.git.URL, "git-url", "", "follow this remote repository instead of the built-in one (https, ssh or file)")
	f.StringVar(&c.git.Branch, "git-branch", "main", "branch that is deployed")
	f.StringVar(&c.git.Path, "git-path", "", "folder of the repository that is deployed (default: all of it)")
	f.DurationVar(&c.git.Interval, "git-interval", time.Minute, "pause between looks at a remote repository; POST /webhook looks at once")
	f.StringVar(&c.git.CredentialsFile, "git-credentials", "", "file with the remote repository's credentials: user:password, a token, or a private SSH key")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.logFormat, "log-format", "text", "text or json")
	return cmd
}

// up runs every part until ctx is done or one of them fails.
func up(ctx context.Context, c *upConfig, logTo io.Writer) error {
	log, err := newLogger(c.logLevel, c.logFormat, logTo)
	if err != nil {
		return err
	}
	slog.SetDefault(log)
	if os.Geteuid() != 0 {
		return errors.New("up drives containers and the network, and needs root: sudo pawld up")
	}
	node, err := nodeName(c.node)
	if err != nil {
		return err
	}
	mirrors, err := containerd.ParseMirrors(c.mirrors)
	if err != nil {
		return err
	}
	labels, err := parseLabels(c.labels)
	if err != nil {
		return err
	}
	taints, err := parseTaints(c.taints)
	if err != nil {
		return err
	}
	if c.gcLow < 1 || c.gcLow > c.gcHigh || c.gcHigh > 100 {
		return fmt.Errorf("--image-gc-high %d and --image-gc-low %d: want 1 to 100, and low not above high", c.gcHigh, c.gcLow)
	}
	if c.podPids == 0 || c.podPids < -1 {
		return fmt.Errorf("--pod-pids-limit %d: want 1 or more, or -1 for no limit", c.podPids)
	}
	if err := c.instance.open(); err != nil {
		return err
	}
	release, err := c.instance.lock()
	if err != nil {
		return err
	}
	defer release()
	if err := c.keepReserve(); err != nil {
		return err
	}
	if err := replaceFile(c.containerdFile(), []byte(c.containerd+"\n")); err != nil { // for down
		return err
	}

	server, err := natsserver.Start(ctx, natsserver.Options{
		Dir:     filepath.Join(c.data, "nats"),
		KeysDir: filepath.Join(c.data, "keys", "nats"),
		Listen:  c.natsListen,
		Logger:  log.With("room", "natsserver"),
	})
	if err != nil {
		return err
	}
	defer server.Close()

	g, ctx := errgroup.WithContext(ctx)
	address := c.containerd
	if address == "" {
		daemon := c.daemon(log)
		if err := daemon.Start(ctx); err != nil {
			return err
		}
		address, c.trouble = daemon.Address(), daemon.Trouble
		g.Go(func() error { return daemon.Run(ctx) })
	}
	door, err := c.access(log)
	if err != nil {
		return err
	}
	reconcilerConfig, err := c.reconciler(server, door, log)
	if err != nil {
		return err
	}
	net, err := c.network(log)
	if err != nil {
		return err
	}
	agentConfig, closeRuntime, err := c.agent(ctx, server, door, node, net, address, mirrors, log)
	if err != nil {
		return err
	}
	agentConfig.Labels, agentConfig.Taints = labels, taints
	defer func() {
		if err := closeRuntime(); err != nil {
			log.Warn("close the runtime", "error", err)
		}
	}()
	if err := c.leaveContext(server, address, door, log); err != nil {
		return err
	}
	g.Go(func() error { return reconciler.Run(ctx, reconcilerConfig) })
	g.Go(func() error { return nodeagent.Run(ctx, agentConfig) })
	g.Go(func() error { return net.Keep(ctx) })
	log.Info("pawld is up", "version", version, "node", node, "server", door.URL(), "repository", c.repository(door), "nats", server.ClientURL(), "data", c.data)
	err = g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		log.Info("pawld stops; containers go on running")
		return nil
	}
	return err
}

func (c *upConfig) daemon(log *slog.Logger) *containerd.Daemon {
	return containerd.NewDaemon(containerd.DaemonOptions{
		DataDir: filepath.Join(c.data, "containerd"),
		RunDir:  filepath.Join(c.run, "containerd"),
		Logger:  log.With("room", "containerd"),
	})
}

func (c *upConfig) network(log *slog.Logger) (*network.Network, error) {
	bridge := "pawl0"
	if c.name() != "pawl" {
		bridge = c.name()
	}
	return network.New(network.Options{
		Instance: c.name(),
		Bridge:   bridge,
		CIDR:     c.podCIDR,
		StateDir: filepath.Join(c.data, "network"),
		Logger:   log.With("room", "network"),
	})
}

func (c *upConfig) volumes() *volume.Volumes {
	return volume.New(volume.Options{DataDir: filepath.Join(c.data, "volumes"), RunDir: filepath.Join(c.run, "volumes")})
}

func (c *upConfig) runtime(address string, net *network.Network, mirrors map[string][]string, log *slog.Logger) (*containerd.Runtime, error) {
	state := "" // it is somebody else's
	if c.containerd == "" {
		state = c.daemon(log).State()
	}
	return containerd.New(containerd.Options{
		Address:  address,
		State:    state,
		Instance: c.name(),
		DataDir:  c.data,
		RunDir:   c.run,
		Network:  net,
		Mirrors:  mirrors,
		Trouble:  c.trouble,
		Logger:   log.With("room", "containerd"),

		ImageGCHigh: c.gcHigh,
		ImageGCLow:  c.gcLow,
		PodPids:     max(0, c.podPids),
	})
}

// agent wires the node's parts together.
func (c *upConfig) agent(ctx context.Context, server *natsserver.Server, door *access.Access, node schema.NodeName, net *network.Network, address string, mirrors map[string][]string, log *slog.Logger) (nodeagent.Config, func() error, error) {
	if err := net.Setup(ctx); err != nil {
		return nodeagent.Config{}, nil, err
	}
	runtime, err := c.runtime(address, net, mirrors, log)
	if err != nil {
		return nodeagent.Config{}, nil, err
	}
	credentials, err := server.NodeCredentials(node)
	if err != nil {
		return nodeagent.Config{}, nil, err
	}
	podAPI, hostAPI := c.podAPI(door, net.Gateway())
	return nodeagent.Config{
		Node:    node,
		Version: version,
		DataDir: filepath.Join(c.data, "agent"),
		RunDir:  c.run,
		Runtime: runtime,
		Volumes: c.volumes(),
		PodAPI:  podAPI,
		HostAPI: hostAPI,
		Link:    nodeagent.Over(node, kv.ConnOptions{InProcess: server, Credentials: credentials, Name: "nodeagent"}, log),
		Logger:  log,
	}, runtime.Close, nil
}

func (c *upConfig) access(log *slog.Logger) (*access.Access, error) {
	o := c.tls
	o.Listen = c.http
	for _, file := range []*string{&o.CertFile, &o.KeyFile} {
		if *file == "" {
			continue
		}
		var err error
		if *file, err = filepath.Abs(*file); err != nil {
			return nil, err
		}
	}
	return access.Open(access.Options{DataDir: c.data, TLS: o, Issuer: c.issuer, Logger: log.With("room", "access")})
}

func (c *upConfig) reconciler(server *natsserver.Server, door *access.Access, log *slog.Logger) (reconciler.Config, error) {
	control, err := server.ControlCredentials()
	if err != nil {
		return reconciler.Config{}, err
	}
	nodes, err := server.GatewayCredentials()
	if err != nil {
		return reconciler.Config{}, err
	}
	return reconciler.Config{
		DataDir: c.data,
		RunDir:  c.run,
		HTTP:    c.http,
		Access:  door,
		Control: kv.ConnOptions{InProcess: server, Credentials: control, Name: "reconciler"},
		Nodes:   kv.ConnOptions{InProcess: server, Credentials: nodes, Name: "gateway"},
		Git:     c.git,
		Version: version,
		Logger:  log.With("room", "reconciler"),
	}, nil
}

// leaveContext writes what people's tools need to reach this instance. A machine
// without a home directory runs all the same.
func (c *upConfig) leaveContext(server *natsserver.Server, containerdAddress string, door *access.Access, log *slog.Logger) error {
	if err := server.WriteCredsFile(c.natsCredsFile()); err != nil {
		return err
	}
	if err := c.leaveDoor(door); err != nil {
		return err
	}
	home, err := configHome()
	if err != nil {
		log.Warn(err.Error())
		return nil
	}
	w := contextWriter{home: home, log: log}
	written, err := w.write(schema.ClientContext{
		Instance:   c.name(),
		Server:     door.URL(),
		TokenFile:  access.TokenFile(c.data, access.Admin),
		CAFile:     door.CAFile(),
		Repository: c.repository(door),
		Branch:     c.git.Branch,
		NATS:       schema.ClientNATS{URL: server.ClientURL(), CredsFile: c.natsCredsFile()},
		Containerd: schema.ClientContainerd{Address: containerdAddress, Instance: c.name()},
	})
	if err != nil {
		return fmt.Errorf("write the client context: %w", err)
	}
	if c.git.URL == "" {
		log.Info("to push manifests", "run", "git clone -c include.path="+w.gitInclude(written.Name)+" "+written.Repository)
	}
	return nil
}

// repository is where desired state is pushed, without credentials.
func (c *upConfig) repository(door *access.Access) string {
	if c.git.URL != "" {
		return redacted(c.git.URL)
	}
	return door.URL() + githost.Prefix
}

func newLogger(level, format string, to io.Writer) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: must be one of debug, info, warn, error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(to, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(to, opts)), nil
	default:
		return nil, fmt.Errorf("--log-format %q: must be one of text, json", format)
	}
}

// nodeName is the given name, or the first label of the machine's host name.
func nodeName(given string) (schema.NodeName, error) {
	if given == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", err
		}
		given, _, _ = strings.Cut(strings.ToLower(host), ".")
	}
	n := schema.NodeName(given)
	if err := n.Validate(); err != nil {
		return "", fmt.Errorf("%w; --node-name chooses another", err)
	}
	return n, nil
}

// redacted is a repository's URL without the credentials some people write into it.
func redacted(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.User != nil {
		u.User = nil
		return u.String()
	}
	return raw
}
