package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// protocols are the kernel's numbers of those that have ports.
var protocols = map[corev1.Protocol]byte{
	corev1.ProtocolTCP: unix.IPPROTO_TCP, corev1.ProtocolUDP: unix.IPPROTO_UDP, corev1.ProtocolSCTP: unix.IPPROTO_SCTP,
}

func (n *Network) portTable() *nftables.Table {
	return &nftables.Table{Name: n.table() + "-ports", Family: nftables.TableFamilyIPv4}
}

// replacePorts makes the table of the node's ports anew, in one transaction; with
// no ports there is no table:
//
//	table ip pawl-<instance>-ports {
//	  chain prerouting { type nat hook prerouting priority dstnat; the rules of every port: }
//	  chain output { type nat hook output priority dstnat; the same }
//	    fib daddr type local ip protocol tcp th dport 8080 dnat to 10.42.0.7:80
//	  chain postrouting { type nat hook postrouting priority srcnat;
//	    ip saddr 127.0.0.0/8 oifname <bridge> masquerade
//	    ct original proto-dst 8080 ct status dnat ip saddr <pods> ip daddr 10.42.0.7 masquerade }
//	  chain guard { type filter hook prerouting priority raw;
//	    iifname <bridge> ip daddr 127.0.0.0/8 drop }
//	}
//
// The node's own packets to 127.0.0.1 leave by the bridge with a loopback
// address as their source, which the kernel lets pass only where route_localnet
// is set. That would also let pods reach what listens on the node's loopback:
// the guard drops it. A pod that reaches another by a port of the node would be
// answered directly, across the bridge, by one it did not ask: masquerade.
//
// The caller holds publishing.
func (n *Network) replacePorts() error {
	ports, err := n.readPorts()
	if err != nil {
		return fmt.Errorf("read which ports of the node lead to pods: %w", err)
	}
	if err := n.onHostThread(func() error { return n.routeLocal(len(ports) > 0) }); err != nil {
		return err
	}
	return n.onTables(func(c *nftables.Conn) error {
		t := n.portTable()
		c.AddTable(t) // adding before deleting: a delete alone fails when there is none
		c.DelTable(t)
		if len(ports) > 0 {
			c.AddTable(t)
			n.addPorts(c, t, ports)
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("replace nftables table %s: %w", t.Name, err)
		}
		return nil
	})
}

// routeLocal lets what comes from loopback leave by the bridge, or not. Without a
// bridge nothing can, until Setup makes it anew.
func (n *Network) routeLocal(on bool) error {
	file, value := "/proc/sys/net/ipv4/conf/"+n.bridge+"/route_localnet", "0"
	if on {
		value = "1"
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set route_localnet of %s: %w", n.bridge, err)
	}
	return nil
}

func (n *Network) addPorts(c *nftables.Conn, t *nftables.Table, ports []hostPort) {
	policy := nftables.ChainPolicyAccept
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: t, Type: kind, Hooknum: hook, Priority: priority, Policy: &policy})
	}
	guard := chain("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	drop := join(n.byBridge(expr.MetaKeyIIFNAME, expr.CmpOpEq), loopback(destinationOffset), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
	c.AddRule(&nftables.Rule{Table: t, Chain: guard, Exprs: drop})

	post := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	masquerade := []expr.Any{&expr.Masq{FullyRandom: true}}
	c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: join(loopback(sourceOffset), n.byBridge(expr.MetaKeyOIFNAME, expr.CmpOpEq), masquerade)})
	for _, h := range ports {
		c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: join(h.wasAsked(), n.inRange(sourceOffset, expr.CmpOpEq), address(destinationOffset, h.PodIP.AsSlice()), masquerade)})
	}
	for _, to := range []*nftables.Chain{
		chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest),
	} {
		for _, h := range ports {
			c.AddRule(&nftables.Rule{Table: t, Chain: to, Exprs: join(h.asked(), h.leads())})
		}
	}
}

func join(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// asked matches what is sent to the port of the node.
func (h hostPort) asked() []expr.Any {
	where := []expr.Any{
		&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
	if h.HostIP.IsValid() {
		where = address(destinationOffset, h.HostIP.AsSlice())
	}
	return join(where, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocols[h.Protocol]}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(h.HostPort)},
	})
}

func (h hostPort) leads() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: h.PodIP.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(h.PodPort)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}

// wasAsked matches what such a rule has turned.
func (h hostPort) wasAsked() []expr.Any {
	const statusDNAT = 1 << 5 // IPS_DST_NAT
	zero := make([]byte, 4)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocols[h.Protocol]}},
		&expr.Ct{Key: expr.CtKeyPROTODST, Direction: 0, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(h.HostPort)},
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(statusDNAT), Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: zero},
	}
}

// address compares an address of the packet's header.
func address(offset uint32, ip []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ip},
	}
}

// loopback matches 127.0.0.0/8.
func loopback(offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127}},
	}
}

// removePorts removes the table and its record.
func (n *Network) removePorts() error {
	n.publishing.Lock()
	defer n.publishing.Unlock()
	if err := os.RemoveAll(n.portsDir()); err != nil {
		return err
	}
	return n.replacePorts()
}

// forgetFlows has the kernel forget where it sent datagrams to ports that lead
// elsewhere from now on: a flow that goes on would never be looked up again.
func (n *Network) forgetFlows(list []hostPort) error {
	ports := udpPorts(list)
	if len(ports) == 0 {
		return nil
	}
	h, err := n.conntrack()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, port := range ports {
		f := &netlink.ConntrackFilter{}
		if err := errors.Join(f.AddProtocol(unix.IPPROTO_UDP), f.AddPort(netlink.ConntrackOrigDstPort, port)); err != nil {
			return err
		}
		if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f); err != nil {
			return fmt.Errorf("forget the flows to port %d: %w", port, err)
		}
	}
	return nil
}

func (n *Network) conntrack() (*netlink.Handle, error) {
	if n.hostNetns == "" {
		return netlink.NewHandle(unix.NETLINK_NETFILTER)
	}
	ns, err := netns.GetFromPath(n.hostNetns)
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	defer ns.Close()
	return netlink.NewHandleAt(ns, unix.NETLINK_NETFILTER)
}
