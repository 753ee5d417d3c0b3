package network

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

const defaultMTU = 1500

// Setup makes what all pods share: the bridge with the gateway's address,
// forwarding, the masquerade table. It puts right what is there already, joins
// pods that still run to the bridge and removes orphaned veths. Wraps
// schema.ErrRefused when the range or the bridge's name belongs to another.
func (n *Network) Setup(ctx context.Context) error {
	if err := n.setup(ctx); err != nil {
		return fmt.Errorf("set up the pods' network: %w", err)
	}
	return nil
}

func (n *Network) setup(ctx context.Context) error {
	host, err := n.onHost()
	if err != nil {
		return err
	}
	defer host.Close()
	if err := n.checkRange(host); err != nil {
		return err
	}
	if err := n.checkLeases(ctx); err != nil {
		return err
	}
	bridge, err := n.ensureBridge(host)
	if err != nil {
		return err
	}
	if err := n.onHostThread(n.enableForwarding); err != nil {
		return err
	}
	if err := n.replaceTable(); err != nil {
		return err
	}
	if err := n.adoptVeths(host, bridge); err != nil {
		return err
	}
	if _, err = n.sweep(host); err != nil {
		return err
	}
	n.publishing.Lock()
	defer n.publishing.Unlock()
	return n.replacePorts()
}

// checkRange refuses a range that overlaps what another link reaches.
func (n *Network) checkRange(host *netlink.Handle) error {
	names, err := linkNames(host)
	if err != nil {
		return err
	}
	routes, err := host.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list the host's routes: %w", err)
	}
	for _, r := range routes {
		if r.Table == unix.RT_TABLE_LOCAL || names[r.LinkIndex] == n.bridge {
			continue
		}
		if to, ok := prefixOf(r.Dst); ok && to.Bits() > 0 && to.Overlaps(n.prefix) {
			return fmt.Errorf("the pod range %s overlaps the route to %s by %s; choose another range: %w",
				n.prefix, to, names[r.LinkIndex], schema.ErrRefused)
		}
	}
	addrs, err := host.AddrList(nil, netlink.FAMILY_V4)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, a := range addrs {
		if has, ok := prefixOf(a.IPNet); ok && names[a.LinkIndex] != n.bridge && has.Overlaps(n.prefix) {
			return fmt.Errorf("the pod range %s overlaps %s of link %s; choose another range: %w",
				n.prefix, has, names[a.LinkIndex], schema.ErrRefused)
		}
	}
	return nil
}

// checkLeases refuses to change the range under pods that have addresses.
func (n *Network) checkLeases(ctx context.Context) error {
	known, err := n.Known(ctx)
	if err != nil {
		return err
	}
	for uid, a := range known {
		if !n.prefix.Contains(a) {
			return fmt.Errorf("pod %s holds %s, which is outside the pod range %s; remove the pods first, or keep their range: %w",
				uid, a, n.prefix, schema.ErrRefused)
		}
	}
	return nil
}

// ensureBridge makes the bridge, or takes up the one that this instance made.
func (n *Network) ensureBridge(host *netlink.Handle) (netlink.Link, error) {
	bridge, err := host.LinkByName(n.bridge)
	if isGone(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = n.bridge
		attrs.HardwareAddr = n.bridgeMAC()
		attrs.MTU = uplinkMTU(host)
		if err := host.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("make bridge %s: %w", n.bridge, err)
		}
		bridge, err = host.LinkByName(n.bridge)
	}
	if err != nil {
		return nil, fmt.Errorf("look up bridge %s: %w", n.bridge, err)
	}
	if err := n.ownBridge(bridge); err != nil {
		return nil, err
	}
	if err := host.LinkSetAlias(bridge, n.alias()); err != nil {
		return nil, fmt.Errorf("mark bridge %s: %w", n.bridge, err)
	}
	if err := n.setGateway(host, bridge); err != nil {
		return nil, err
	}
	if err := host.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("set bridge %s up: %w", n.bridge, err)
	}
	return bridge, nil
}

// ownBridge refuses a link that this instance did not make. The hardware address
// tells from the first instant on, before the alias is set.
func (n *Network) ownBridge(link netlink.Link) error {
	if link.Type() == "bridge" && (link.Attrs().Alias == n.alias() || link.Attrs().HardwareAddr.String() == n.bridgeMAC().String()) {
		return nil
	}
	return fmt.Errorf("link %s exists (%s) and was not made by instance %s of Pawl; remove it or choose another bridge name: %w",
		n.bridge, link.Type(), n.instance, schema.ErrRefused)
}

// setGateway makes the gateway the bridge's only IPv4 address.
func (n *Network) setGateway(host *netlink.Handle, bridge netlink.Link) error {
	want := netip.PrefixFrom(n.gateway, n.prefix.Bits())
	addrs, err := host.AddrList(bridge, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", n.bridge, err)
	}
	there := false
	for _, a := range addrs {
		if a.IPNet.String() == want.String() {
			there = true
			continue
		}
		if err := host.AddrDel(bridge, &a); err != nil {
			return fmt.Errorf("remove %s from %s: %w", a.IPNet, n.bridge, err)
		}
	}
	if there {
		return nil
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: n.gateway.AsSlice(), Mask: net.CIDRMask(n.prefix.Bits(), 32)}}
	if err := host.AddrAdd(bridge, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("give %s the address %s: %w", n.bridge, want, err)
	}
	return nil
}

// bridgeMAC is fixed: a bridge without one takes its smallest port's and changes
// it as pods come and go, under the ARP tables of the others.
func (n *Network) bridgeMAC() net.HardwareAddr {
	sum := sha256.Sum256([]byte(n.instance + "/" + n.bridge))
	return append(net.HardwareAddr{0x0a, 0x59}, sum[:4]...)
}

// uplinkMTU is the MTU of the link with the default route, so that what pods
// send fits through it.
func uplinkMTU(host *netlink.Handle) int {
	routes, err := host.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err != nil {
		return defaultMTU
	}
	for _, r := range routes {
		if link, err := host.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU > 0 {
			return min(link.Attrs().MTU, defaultMTU)
		}
	}
	return defaultMTU
}

func linkNames(host *netlink.Handle) (map[int]string, error) {
	links, err := host.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list the host's links: %w", err)
	}
	names := map[int]string{0: "no link"}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits != 32 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a.Unmap(), ones).Masked(), true
}
