package network

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// Defaults of Options.
const (
	DefaultInstance = "pawl"
	DefaultBridge   = "pawl0"
	DefaultCIDR     = "10.42.0.0/24"
)

// maxLinkName is the kernel's bound on a link's name, without the final NUL.
const maxLinkName = 15

// Options say which network a node has.
type Options struct {
	// Instance tells the Pawls of one machine apart, in the names of links and
	// tables: at most 63 of [a-z0-9-]. Default "pawl".
	Instance string
	// Bridge is the bridge's name, at most 15 characters. Default "pawl0", and
	// for another instance its own name, shortened by hash when too long.
	Bridge string
	// CIDR is the pods' range; its first address is the gateway, which is the
	// host's. Default 10.42.0.0/24.
	CIDR string
	// StateDir holds who has which address. It is made when missing.
	StateDir string
	// HostNetns is the path of the network namespace that acts as the host.
	// Default: the process's own.
	HostNetns string
	Logger    *slog.Logger
}

// Network is the pods' network of one node. Its methods may be called from any
// goroutine; those for one pod are called one at a time.
type Network struct {
	instance  string
	bridge    string
	prefix    netip.Prefix
	gateway   netip.Addr
	hostNetns string
	leases    *leases
	changes   changes
	log       *slog.Logger

	publishing sync.Mutex // one makes the table of ports at a time
}

var instanceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// New checks the options; it touches nothing. Errors wrap schema.ErrRefused.
func New(o Options) (*Network, error) {
	if o.Instance == "" {
		o.Instance = DefaultInstance
	}
	if !instanceName.MatchString(o.Instance) {
		return nil, fmt.Errorf("instance name %q: must be lower-case letters, digits and '-', at most 63: %w", o.Instance, schema.ErrRefused)
	}
	if o.Bridge == "" {
		o.Bridge = bridgeName(o.Instance)
	}
	if len(o.Bridge) > maxLinkName || strings.ContainsAny(o.Bridge, "/: \t\n\x00") || o.Bridge == "." || o.Bridge == ".." {
		return nil, fmt.Errorf("bridge name %q: must be at most %d characters without '/', ':' or space: %w", o.Bridge, maxLinkName, schema.ErrRefused)
	}
	if o.CIDR == "" {
		o.CIDR = DefaultCIDR
	}
	prefix, err := parseRange(o.CIDR)
	if err != nil {
		return nil, err
	}
	if o.StateDir == "" {
		return nil, fmt.Errorf("network: a state directory is needed: %w", schema.ErrRefused)
	}
	if o.Logger == nil {
		o.Logger = slog.Default().With("room", "network")
	}
	return &Network{
		instance:  o.Instance,
		bridge:    o.Bridge,
		prefix:    prefix,
		gateway:   prefix.Addr().Next(),
		hostNetns: o.HostNetns,
		leases:    newLeases(o.StateDir, prefix),
		changes:   changes{dir: o.StateDir},
		log:       o.Logger,
	}, nil
}

// parseRange reads an IPv4 range that has room for the gateway and a pod.
func parseRange(cidr string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return p, fmt.Errorf("pod range %q: %w: %w", cidr, err, schema.ErrRefused)
	}
	if !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 30 {
		return p, fmt.Errorf("pod range %q: must be an IPv4 range from /8 to /30: %w", cidr, schema.ErrRefused)
	}
	if p.Masked() != p {
		return p, fmt.Errorf("pod range %q: has host bits set; did you mean %s: %w", cidr, p.Masked(), schema.ErrRefused)
	}
	return p, nil
}

func bridgeName(instance string) string {
	switch {
	case instance == DefaultInstance:
		return DefaultBridge
	case len(instance) <= maxLinkName:
		return instance
	default:
		return "pawl" + hash(instance, maxLinkName-len("pawl"))
	}
}

// Bridge is the name of the bridge.
func (n *Network) Bridge() string { return n.bridge }

// Gateway is the host's address on the bridge.
func (n *Network) Gateway() netip.Addr { return n.gateway }

// Range is the pods' range.
func (n *Network) Range() netip.Prefix { return n.prefix }

func (n *Network) table() string { return "pawl-" + n.instance }

// alias marks the links that this instance made.
func (n *Network) alias() string { return "pawl " + n.instance }

// vethPrefix begins the name of every host-side veth of the instance.
func (n *Network) vethPrefix() string { return "pw" + hash(n.instance, 4) }

// vethName is the host's side of the pod's veth pair.
func (n *Network) vethName(uid types.UID) string {
	return n.vethPrefix() + hash(string(uid), maxLinkName-len("pw")-4)
}

// hash is a short name for s: 5 bits in each character.
func hash(s string, length int) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:length]
}

// onHost opens a netlink socket in the namespace that acts as the host.
func (n *Network) onHost() (*netlink.Handle, error) {
	if n.hostNetns == "" {
		h, err := netlink.NewHandle(netlinkRoute)
		if err != nil {
			return nil, fmt.Errorf("open netlink: %w", err)
		}
		return h, nil
	}
	ns, err := netns.GetFromPath(n.hostNetns)
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, netlinkRoute)
	if err != nil {
		return nil, fmt.Errorf("open netlink in the host's network namespace: %w", err)
	}
	return h, nil
}

// isGone says whether a netlink call failed because the link went away, which
// happens at any time: a veth ends with the pod's namespace.
func isGone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, errNoDevice)
}
