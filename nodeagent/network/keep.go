package network

import (
	"context"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// keepEvery is the pause between looks at what pods share on the host.
const keepEvery = 10 * time.Second

// Keep makes anew what Setup made and others removed, until ctx is done: who loads
// the host's firewall anew flushes all tables, ours too, and anybody can remove a
// bridge.
func (n *Network) Keep(ctx context.Context) error {
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		missing, err := n.missing()
		if err == nil && missing != "" {
			if failures == 0 {
				n.log.Warn("somebody removed a part of the pods' network; making it anew", "part", missing)
			}
			err = n.Setup(ctx)
		}
		if err == nil {
			failures = 0
		} else if failures++; failures == 2 && ctx.Err() == nil { // once may be a look that was disturbed
			n.log.Error("cannot keep the pods' network as it is to be; trying on", "err", err)
		}
	}
}

// missing names the first thing that Setup makes and that is not there; "" for none.
func (n *Network) missing() (string, error) {
	host, err := n.onHost()
	if err != nil {
		return "", err
	}
	defer host.Close()
	bridge, err := host.LinkByName(n.bridge)
	if isGone(err) {
		return "bridge " + n.bridge, nil
	}
	if err != nil {
		return "", fmt.Errorf("look up bridge %s: %w", n.bridge, err)
	}
	addrs, err := host.AddrList(bridge, netlink.FAMILY_V4)
	if err != nil {
		return "", fmt.Errorf("list the addresses of %s: %w", n.bridge, err)
	}
	if len(addrs) == 0 {
		return "the address of " + n.bridge, nil
	}
	return n.missingTable()
}

func (n *Network) missingTable() (string, error) {
	n.publishing.Lock() // a record of ports comes before their table
	defer n.publishing.Unlock()
	ports, err := n.readPorts()
	if err != nil {
		return "", fmt.Errorf("read which ports of the node lead to pods: %w", err)
	}
	want := map[string]bool{n.table(): true}
	if len(ports) > 0 {
		want[n.portTable().Name] = true
	}
	err = n.onTables(func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
		for _, t := range tables {
			delete(want, t.Name)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("list the nftables tables: %w", err)
	}
	for name := range want {
		return "nftables table " + name, nil
	}
	return "", nil
}
