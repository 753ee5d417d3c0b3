package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/types"
)

// vethAlias keeps on the link itself whose it is, so that a lost state directory
// can be made again from the links.
func (n *Network) vethAlias(uid types.UID, a netip.Addr) string {
	return n.alias() + " " + string(uid) + " " + a.String()
}

func (n *Network) parseVethAlias(alias string) (types.UID, netip.Addr, bool) {
	rest, ok := strings.CutPrefix(alias, n.alias()+" ")
	if !ok {
		return "", netip.Addr{}, false
	}
	uid, text, ok := strings.Cut(rest, " ")
	if !ok || !uidForm.MatchString(uid) {
		return "", netip.Addr{}, false
	}
	a, err := netip.ParseAddr(text)
	return types.UID(uid), a, err == nil
}

// Sweep removes the instance's veths whose pod holds no address: their namespace
// was left behind. It returns how many.
func (n *Network) Sweep(ctx context.Context) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	host, err := n.onHost()
	if err != nil {
		return 0, err
	}
	defer host.Close()
	return n.sweep(host)
}

func (n *Network) sweep(host *netlink.Handle) (int, error) {
	// Links first, leases after: a lease is older than its veth, so whatever is
	// listed and has no lease was detached.
	veths, err := n.veths(host)
	if err != nil {
		return 0, err
	}
	known, _, err := n.leases.all()
	if err != nil {
		return 0, err
	}
	held := map[string]bool{}
	for uid := range known {
		held[n.vethName(uid)] = true
	}
	removed := 0
	for _, v := range veths {
		if held[v.Attrs().Name] {
			continue
		}
		if err := host.LinkDel(v); err != nil && !isGone(err) {
			return removed, fmt.Errorf("remove orphaned veth %s: %w", v.Attrs().Name, err)
		}
		removed++
	}
	if removed > 0 {
		n.log.Info("removed orphaned veths", "count", removed)
	}
	return removed, nil
}

// veths lists the host's ends of the instance's veth pairs.
func (n *Network) veths(host *netlink.Handle) ([]netlink.Link, error) {
	links, err := host.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list the host's links: %w", err)
	}
	var ours []netlink.Link
	for _, l := range links {
		if l.Type() == "veth" && strings.HasPrefix(l.Attrs().Name, n.vethPrefix()) {
			ours = append(ours, l)
		}
	}
	return ours, nil
}

// adoptVeths joins the veths of pods that still run to the bridge, which may be
// a new one, and makes their leases again when the state directory was lost.
func (n *Network) adoptVeths(host *netlink.Handle, bridge netlink.Link) error {
	veths, err := n.veths(host)
	if err != nil {
		return err
	}
	known, whole, err := n.leases.all()
	if err != nil {
		return err
	}
	for _, v := range veths {
		uid, a, ok := n.parseVethAlias(v.Attrs().Alias)
		if !ok || n.vethName(uid) != v.Attrs().Name || !n.prefix.Contains(a) {
			continue
		}
		if _, held := known[uid]; !held {
			if whole {
				continue // detached; Sweep removes it
			}
			if err := n.leases.adopt(uid, a); err != nil {
				return err
			}
			n.log.Warn("took up a pod's address from its link, because the record of it was lost", "uid", uid, "address", a)
		}
		if err := n.plug(host, bridge, v, uid, a); err != nil && !isGone(err) {
			return fmt.Errorf("join pod %s to the bridge again: %w", uid, err)
		}
	}
	return n.leases.settle()
}

// Teardown removes everything the instance made on this host: table, veths,
// bridge, addresses. It goes on past what fails, and may be called again.
func (n *Network) Teardown(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	host, err := n.onHost()
	if err != nil {
		return err
	}
	defer host.Close()
	faults := []error{n.removePorts(), n.removeTable(), n.removeLinks(host)}
	others, err := n.otherBridges(host)
	faults = append(faults, err)
	if err == nil {
		faults = append(faults, n.onHostThread(func() error { return n.restoreForwarding(others) }))
	}
	faults = append(faults, n.leases.forget())
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("take down the pods' network: %w", err)
	}
	if err := os.Remove(n.changes.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.log.Debug("the state directory stays", "error", err)
	}
	return nil
}

func (n *Network) removeLinks(host *netlink.Handle) error {
	veths, err := n.veths(host)
	faults := []error{err}
	for _, v := range veths {
		if err := host.LinkDel(v); err != nil && !isGone(err) {
			faults = append(faults, fmt.Errorf("remove veth %s: %w", v.Attrs().Name, err))
		}
	}
	bridge, err := host.LinkByName(n.bridge)
	switch {
	case isGone(err):
	case err != nil:
		faults = append(faults, fmt.Errorf("look up bridge %s: %w", n.bridge, err))
	case n.ownBridge(bridge) != nil:
		n.log.Warn("left a link alone that this instance did not make", "link", n.bridge)
	default:
		if err := host.LinkDel(bridge); err != nil && !isGone(err) {
			faults = append(faults, fmt.Errorf("remove bridge %s: %w", n.bridge, err))
		}
	}
	return errors.Join(faults...)
}

// otherBridges names the bridges that are not this instance's.
func (n *Network) otherBridges(host *netlink.Handle) ([]string, error) {
	links, err := host.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list the host's links: %w", err)
	}
	var names []string
	for _, l := range links {
		if l.Type() == "bridge" && l.Attrs().Name != n.bridge {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}
