package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// A port of the node leads to a pod's. Which ones do stands on disk, one file
// for each pod that has any,
//
//	<StateDir>/ports/<uid>
//
// and the kernel's table of them is always made of all the files, whole and in
// one transaction: a kill at any instant leaves the table as it was before or as
// it is to be, and Setup makes the next one.

// A hostPort is a port of the node's addresses and where it leads.
type hostPort struct {
	HostIP   netip.Addr      `json:"hostIP,omitzero"` // zero: all of the node's
	HostPort uint16          `json:"hostPort"`
	Protocol corev1.Protocol `json:"protocol"`
	PodIP    netip.Addr      `json:"podIP"`
	PodPort  uint16          `json:"podPort"`
}

const maxPortsFile = 1 << 20 // bytes; a pod has far fewer ports

// Publish has the node's ports that the pod's containers name (hostPort) lead to
// the pod. It takes the place of what was published for the pod before; Detach
// ends it. The pod must be attached. Errors wrap schema.ErrRefused for what no
// node can do.
func (n *Network) Publish(ctx context.Context, uid types.UID, ports []corev1.ContainerPort) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkUID(uid); err != nil {
		return err
	}
	known, _, err := n.leases.all()
	if err != nil {
		return err
	}
	addr, attached := known[uid]
	if !attached {
		return fmt.Errorf("publish the ports of pod %s: it is not attached: %w", uid, schema.ErrUnavailable)
	}
	list, err := hostPortsOf(ports, addr)
	if err != nil {
		return fmt.Errorf("publish the ports of pod %s: %w", uid, err)
	}
	n.publishing.Lock()
	defer n.publishing.Unlock()
	if err := n.writePorts(uid, list); err != nil {
		return fmt.Errorf("publish the ports of pod %s: %w", uid, err)
	}
	if err := n.replacePorts(); err != nil {
		return err
	}
	return n.forgetFlows(list)
}

// hostPortsOf are the ports that the node is to have, in order.
func hostPortsOf(ports []corev1.ContainerPort, pod netip.Addr) ([]hostPort, error) {
	var list []hostPort
	for _, p := range ports {
		if p.HostPort == 0 {
			continue
		}
		h := hostPort{HostPort: uint16(p.HostPort), PodPort: uint16(p.ContainerPort), Protocol: p.Protocol, PodIP: pod}
		if h.Protocol == "" {
			h.Protocol = corev1.ProtocolTCP
		}
		if p.HostIP != "" {
			ip, err := netip.ParseAddr(p.HostIP)
			if err != nil || !ip.Is4() {
				return nil, fmt.Errorf("hostIP %q: must be an IPv4 address, as pods have no others: %w", p.HostIP, schema.ErrRefused)
			}
			if !ip.IsUnspecified() {
				h.HostIP = ip
			}
		}
		if err := h.check(); err != nil {
			return nil, fmt.Errorf("hostPort %d: %w", p.HostPort, err)
		}
		list = append(list, h)
	}
	return list, nil
}

// check refuses what cannot be a rule, also when it was read from a spoilt file.
func (h hostPort) check() error {
	if _, known := protocols[h.Protocol]; !known || h.HostPort == 0 || h.PodPort == 0 || !h.PodIP.Is4() || h.HostIP.IsValid() && !h.HostIP.Is4() {
		return fmt.Errorf("want a port, TCP, UDP or SCTP, and IPv4 addresses, not %+v: %w", h, schema.ErrRefused)
	}
	return nil
}

func (n *Network) portsDir() string { return filepath.Join(n.changes.dir, "ports") }

// writePorts keeps what a pod publishes; nothing removes the file.
func (n *Network) writePorts(uid types.UID, list []hostPort) error {
	file := filepath.Join(n.portsDir(), string(uid))
	if len(list) == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(n.portsDir(), 0o755); err != nil {
		return err
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	// No uid begins so: a half-written file is none of a pod's.
	part := filepath.Join(n.portsDir(), "."+string(uid))
	if err := os.WriteFile(part, text, 0o644); err != nil {
		return err
	}
	return os.Rename(part, file)
}

// readPorts lists what all pods that hold an address publish, in order. The
// files of others were left by a killed agent, and are removed.
func (n *Network) readPorts() ([]hostPort, error) {
	entries, err := os.ReadDir(n.portsDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	known, _, err := n.leases.all()
	if err != nil {
		return nil, err
	}
	var all []hostPort
	for _, e := range entries {
		file := filepath.Join(n.portsDir(), e.Name())
		addr, held := known[types.UID(e.Name())]
		if !held {
			if err := os.Remove(file); err != nil {
				return nil, err
			}
			continue
		}
		list, err := readPortsFile(file)
		if err == nil {
			err = leadTo(list, addr)
		}
		if err != nil {
			n.log.Error("a record of a pod's ports is spoilt; they lead nowhere until the pod is made anew", "uid", e.Name(), "err", err)
			continue
		}
		all = append(all, list...)
	}
	return all, nil
}

func readPortsFile(file string) ([]hostPort, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxPortsFile {
		return nil, fmt.Errorf("it has %d bytes", info.Size())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parsePorts(text)
}

func parsePorts(text []byte) ([]hostPort, error) {
	var list []hostPort
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	for _, h := range list {
		if err := h.check(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// leadTo refuses ports that lead to another pod than the one with the address.
func leadTo(list []hostPort, pod netip.Addr) error {
	for _, h := range list {
		if h.PodIP != pod {
			return fmt.Errorf("port %d leads to %s, and the pod has %s: %w", h.HostPort, h.PodIP, pod, schema.ErrRefused)
		}
	}
	return nil
}

// withdraw ends what a pod publishes, if it publishes anything.
func (n *Network) withdraw(uid types.UID) error {
	n.publishing.Lock()
	defer n.publishing.Unlock()
	file := filepath.Join(n.portsDir(), string(uid))
	list, err := readPortsFile(file) // a spoilt one names no flows
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := n.writePorts(uid, nil); err != nil {
		return err
	}
	if err := n.replacePorts(); err != nil {
		// They lead there still: who tries again must find them.
		return errors.Join(err, n.writePorts(uid, list))
	}
	return n.forgetFlows(list)
}

// udpPorts are those of a list whose flows the kernel remembers without a
// connection that would end.
func udpPorts(list []hostPort) []uint16 {
	var ports []uint16
	for _, h := range list {
		if h.Protocol == corev1.ProtocolUDP {
			ports = append(ports, h.HostPort)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
