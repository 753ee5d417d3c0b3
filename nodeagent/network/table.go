package network

import (
	"fmt"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// replaceTable replaces the instance's table in one transaction:
//
//	table ip pawl-<instance> {
//	  chain postrouting { type nat hook postrouting priority srcnat;
//	    ip saddr <pods> ip daddr != <pods> oifname != <bridge> masquerade fully-random }
//	  chain forward { type filter hook forward priority filter;
//	    iifname <bridge> accept
//	    oifname <bridge> accept }
//	}
func (n *Network) replaceTable() error {
	return n.onTables(func(c *nftables.Conn) error {
		t := &nftables.Table{Name: n.table(), Family: nftables.TableFamilyIPv4}
		// Adding before deleting: a delete alone fails when there is none.
		c.AddTable(t)
		c.DelTable(t)
		c.AddTable(t)
		n.addPostrouting(c, t)
		n.addForward(c, t)
		if err := c.Flush(); err != nil {
			return fmt.Errorf("replace nftables table %s: %w", n.table(), err)
		}
		n.warnOfDrops(c)
		return nil
	})
}

func (n *Network) addPostrouting(c *nftables.Conn, t *nftables.Table) {
	policy := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &policy,
	})
	var e []expr.Any
	e = append(e, n.inRange(sourceOffset, expr.CmpOpEq)...)
	e = append(e, n.inRange(destinationOffset, expr.CmpOpNeq)...)
	e = append(e, n.byBridge(expr.MetaKeyOIFNAME, expr.CmpOpNeq)...)
	e = append(e, &expr.Counter{}, &expr.Masq{FullyRandom: true})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: e})
}

func (n *Network) addForward(c *nftables.Conn, t *nftables.Table) {
	policy := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy,
	})
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		e := append(n.byBridge(key, expr.CmpOpEq), &expr.Verdict{Kind: expr.VerdictAccept})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: e})
	}
}

// Offsets in the IPv4 header, in bytes.
const (
	sourceOffset      = 12
	destinationOffset = 16
)

// inRange compares an address of the packet's header with the pods' range.
func (n *Network) inRange(offset uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(n.prefix.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: n.prefix.Addr().AsSlice()},
	}
}

// byBridge compares the link that a packet came by, or leaves by, with the bridge.
func (n *Network) byBridge(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, n.bridge)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: name},
	}
}

// removeTable removes the instance's table; none is no error.
func (n *Network) removeTable() error {
	return n.onTables(func(c *nftables.Conn) error {
		t := &nftables.Table{Name: n.table(), Family: nftables.TableFamilyIPv4}
		c.AddTable(t)
		c.DelTable(t)
		if err := c.Flush(); err != nil {
			return fmt.Errorf("remove nftables table %s: %w", n.table(), err)
		}
		return nil
	})
}

// warnOfDrops names the chains of others that drop what is forwarded: an accept
// in our chain does not overrule them.
func (n *Network) warnOfDrops(c *nftables.Conn) {
	chains, err := c.ListChains()
	if err != nil {
		n.log.Warn("cannot see whether another firewall drops the pods' traffic", "error", err)
		return
	}
	for _, chain := range chains {
		if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop && chain.Hooknum != nil &&
			*chain.Hooknum == *nftables.ChainHookForward && chain.Table.Family != nftables.TableFamilyARP && chain.Table.Family != nftables.TableFamilyBridge {
			n.log.Warn("another firewall drops forwarded traffic by default; pods may not reach the outside until it lets the bridge through",
				"table", chain.Table.Name, "chain", chain.Name, "bridge", n.bridge)
		}
	}
}

// onTables calls f with a connection to the host's nftables.
func (n *Network) onTables(f func(*nftables.Conn) error) error {
	var opts []nftables.ConnOption
	if n.hostNetns != "" {
		ns, err := netns.GetFromPath(n.hostNetns)
		if err != nil {
			return fmt.Errorf("open the host's network namespace: %w", err)
		}
		defer ns.Close()
		opts = append(opts, nftables.WithNetNSFd(int(ns)))
	}
	c, err := nftables.New(opts...)
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	return f(c)
}
