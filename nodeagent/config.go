package nodeagent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Config is what Run needs. Zero fields have the defaults named beside them.
type Config struct {
	Node    schema.NodeName
	DataDir string // the agent's own, shared with nothing; survives a reboot: its assignments lie there
	RunDir  string // need not survive one

	Runtime Runtime
	Volumes Volumes

	Conn kv.ConnOptions // to the control plane; the zero value: the agent lives from its last assignments
	Link Link           // instead of Conn

	Version  string              // of Pawl, for people
	Labels   map[string]string   // of the node, besides the usual ones
	Taints   []corev1.Taint      // of the node
	NodeIP   string              // the address by which the machine reaches others
	PodAPI   string              // host:port where pods reach the API by TLS; "": nowhere
	HostAPI  string              // the same for pods on the node's network
	MaxPods  int                 // 110
	Reserved corev1.ResourceList // of the capacity, not to be given to pods: none

	StartsAtOnce int           // container starts in parallel: 8
	Heartbeat    time.Duration // between reports of the node: 10 s
	Relook       time.Duration // between looks at a pod that nothing wakes: 5 min

	Logger *slog.Logger // slog.Default()
}

// Link is the connection to the control plane; Over makes one of NATS.
type Link interface {
	ControlPlane
	// Run hands what is assigned to h until ctx is done: the whole set at first
	// and after every gap, then changes. It calls h from one goroutine.
	Run(ctx context.Context, h Handler) error
}

// Handler takes what the control plane assigns to the node.
type Handler interface {
	// Whole is everything there is. What is absent is left alone.
	Whole(a Assigned)
	// Delta is what changed; remove names what is no longer there and comes first.
	Delta(a Assigned, remove []schema.ObjectKey)
}

// Assigned is pods of the node and the objects that they need.
type Assigned struct {
	Assignments []schema.Assignment
	ConfigMaps  []corev1.ConfigMap
	Secrets     []corev1.Secret
}

func (c *Config) complete() error {
	if err := c.Node.Validate(); err != nil {
		return err
	}
	if c.Runtime == nil || c.Volumes == nil || !filepath.IsAbs(c.DataDir) {
		return errors.New("node agent: needs a Runtime, Volumes and an absolute DataDir")
	}
	if c.MaxPods == 0 {
		c.MaxPods = 110
	}
	if c.StartsAtOnce == 0 {
		c.StartsAtOnce = 8
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	if c.Relook == 0 {
		c.Relook = 5 * time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("room", "nodeagent", "node", string(c.Node))
	if c.Link == nil && (c.Conn.InProcess != nil || c.Conn.URL != "") {
		c.Link = Over(c.Node, c.Conn, c.Logger)
	}
	if c.NodeIP == "" {
		c.NodeIP = hostIP()
	}
	return nil
}
