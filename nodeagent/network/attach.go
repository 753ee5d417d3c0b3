package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

const (
	netlinkRoute = unix.NETLINK_ROUTE
	errNoDevice  = unix.ENODEV
	podLink      = "eth0" // the pod's side of its veth pair
)

// Attach gives the pod an address in its network namespace and returns it. It
// may be called again at any time, and finishes what a crash cut off. Wraps
// schema.ErrUnavailable when all addresses are in use or the bridge is missing,
// schema.ErrNotFound when the namespace is.
func (n *Network) Attach(ctx context.Context, uid types.UID, netnsPath string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := checkUID(uid); err != nil {
		return "", err
	}
	pod, err := openPod(netnsPath)
	if err != nil {
		return "", fmt.Errorf("attach pod %s: %w", uid, err)
	}
	defer pod.close()
	host, err := n.onHost()
	if err != nil {
		return "", fmt.Errorf("attach pod %s: %w", uid, err)
	}
	defer host.Close()
	bridge, err := host.LinkByName(n.bridge)
	if isGone(err) {
		return "", fmt.Errorf("attach pod %s: bridge %s is missing: %w", uid, n.bridge, schema.ErrUnavailable)
	}
	if err != nil {
		return "", fmt.Errorf("attach pod %s: look up bridge %s: %w", uid, n.bridge, err)
	}
	// The lease comes first: a veth without one is an orphan that Sweep removes.
	addr, err := n.leases.take(uid)
	if err != nil {
		return "", fmt.Errorf("attach pod %s: %w", uid, err)
	}
	if err := n.join(host, bridge, pod, uid, addr); err != nil {
		return "", fmt.Errorf("attach pod %s at %s: %w", uid, addr, err)
	}
	return addr.String(), nil
}

// Detach frees the pod's address and the ports of the node that lead to it. The veth pair ends with the pod's namespace,
// in the kernel's own time: deleting it here would wait 32 ms. Call it when the
// pod's processes are gone. A pod that is not known is no error.
func (n *Network) Detach(ctx context.Context, uid types.UID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkUID(uid); err != nil {
		return err
	}
	// The ports first: they must not lead to who has the address next.
	if err := n.withdraw(uid); err != nil {
		return fmt.Errorf("detach pod %s: %w", uid, err)
	}
	if err := n.leases.release(uid); err != nil {
		return fmt.Errorf("detach pod %s: %w", uid, err)
	}
	return nil
}

// Known returns the pods that hold an address, and which.
func (n *Network) Known(ctx context.Context) (map[types.UID]netip.Addr, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, _, err := n.leases.all()
	return all, err
}

// join makes what is missing between the bridge and the pod's namespace.
func (n *Network) join(host *netlink.Handle, bridge netlink.Link, pod *podNetns, uid types.UID, addr netip.Addr) error {
	veth, inside, err := n.pair(host, bridge, pod, uid, addr)
	if err != nil {
		return err
	}
	if err := n.plug(host, bridge, veth, uid, addr); err != nil {
		return err
	}
	return n.address(pod.handle, inside, addr)
}

// pair returns both ends of the pod's veth pair, made now or found. A pair of
// that name that leads into another namespace belonged to an earlier sandbox of
// the pod, and gives way.
func (n *Network) pair(host *netlink.Handle, bridge netlink.Link, pod *podNetns, uid types.UID, addr netip.Addr) (veth, inside netlink.Link, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.vethName(uid)
	attrs.MTU = bridge.Attrs().MTU
	attrs.Flags = net.FlagUp
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1 // the kernel would make as many as there are processors
	made := netlink.NewVeth(attrs)
	made.PeerName = podLink
	made.PeerHardwareAddr = podMAC(addr)
	made.PeerNamespace = netlink.NsFd(pod.ns)

	for range 3 {
		made.Index = 0 // LinkAdd sets it
		err = host.LinkAdd(made)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, nil, fmt.Errorf("make the veth pair: %w", err)
		}
		existed := err != nil
		inside, err = pod.handle.LinkByName(podLink)
		if err != nil && !isGone(err) {
			return nil, nil, fmt.Errorf("look up %s in the pod's namespace: %w", podLink, err)
		}
		if !existed && err == nil && made.Index != 0 {
			return made, inside, nil
		}
		if veth, err = n.found(host, attrs.Name, inside); err != nil {
			return nil, nil, err
		}
		if veth != nil {
			return veth, inside, nil
		}
	}
	return nil, nil, fmt.Errorf("the veth pair went away while it was made: %w", schema.ErrUnavailable)
}

// found returns the veth that exists by that name when it leads to inside. It
// removes one that leads elsewhere and then returns nil: make it again.
func (n *Network) found(host *netlink.Handle, name string, inside netlink.Link) (netlink.Link, error) {
	veth, err := host.LinkByName(name)
	if isGone(err) {
		if inside != nil {
			return nil, fmt.Errorf("the pod's namespace has a link %s already that is not Pawl's: %w", podLink, schema.ErrRefused)
		}
		return nil, nil // it ended under our hands
	}
	if err != nil {
		return nil, fmt.Errorf("look up the veth: %w", err)
	}
	if inside != nil && inside.Type() == "veth" && inside.Attrs().ParentIndex == veth.Attrs().Index {
		return veth, nil
	}
	if err := host.LinkDel(veth); err != nil && !isGone(err) {
		return nil, fmt.Errorf("remove the veth of an earlier sandbox: %w", err)
	}
	return nil, nil
}

// plug makes the host's end a port of the bridge.
func (n *Network) plug(host *netlink.Handle, bridge, veth netlink.Link, uid types.UID, addr netip.Addr) error {
	if veth.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := host.LinkSetMasterByIndex(veth, bridge.Attrs().Index); err != nil {
			return fmt.Errorf("join the bridge: %w", err)
		}
	}
	// Hairpin: a pod may reach itself through a service's address.
	if err := host.LinkSetHairpin(veth, true); err != nil {
		return fmt.Errorf("set hairpin mode: %w", err)
	}
	if want := n.vethAlias(uid, addr); veth.Attrs().Alias != want {
		if err := host.LinkSetAlias(veth, want); err != nil {
			return fmt.Errorf("name the veth's pod: %w", err)
		}
	}
	if veth.Attrs().Flags&net.FlagUp == 0 {
		if err := host.LinkSetUp(veth); err != nil {
			return fmt.Errorf("set the veth up: %w", err)
		}
	}
	return nil
}

// address sets the pod's side up: loopback, address, default route.
func (n *Network) address(in *netlink.Handle, eth netlink.Link, addr netip.Addr) error {
	// Loopback is link 1 of every namespace.
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1, Name: "lo"}}
	if err := in.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	ip := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(n.prefix.Bits(), 32)}}
	if err := in.AddrAdd(eth, ip); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("set the address: %w", err)
	}
	if err := in.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set %s up: %w", podLink, err)
	}
	route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: n.gateway.AsSlice()}
	if err := in.RouteAdd(route); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("set the default route: %w", err)
	}
	return nil
}

// podMAC is derived from the address, so that the neighbours' ARP tables stay
// right when an address passes from one pod to another.
func podMAC(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

// A podNetns is an open network namespace with a netlink socket in it.
type podNetns struct {
	ns     netns.NsHandle
	handle *netlink.Handle
}

func openPod(path string) (*podNetns, error) {
	ns, err := netns.GetFromPath(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("network namespace %s: %w", path, schema.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	h, err := netlink.NewHandleAt(ns, netlinkRoute)
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return &podNetns{ns: ns, handle: h}, nil
}

func (p *podNetns) close() {
	p.handle.Close()
	p.ns.Close()
}
