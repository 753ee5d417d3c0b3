package containerd

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// A rule for a port of the node goes before whatever listens there: a pod with
// the port of the API or of the store would cut everybody off from them. What
// Pawl listens on is asked of the kernel, so that nothing need be configured and
// a daemon beside this one is seen too. Ports of other programs are given away,
// as Kubernetes does.

// checkFree refuses ports of the node that Pawl itself listens on.
func checkFree(ports []corev1.ContainerPort) error {
	for _, p := range ports {
		who, err := pawlListens(p)
		if err != nil {
			return fmt.Errorf("hostPort %d: who listens on it: %w", p.HostPort, err)
		}
		if who != 0 {
			return fmt.Errorf("hostPort %d: Pawl itself listens on this port of the node (pid %d): %w", p.HostPort, who, schema.ErrRefused)
		}
	}
	return nil
}

// pawlListens is the pid of a process of this program that the port would be
// taken from; 0 when there is none.
func pawlListens(p corev1.ContainerPort) (int, error) {
	ip, err := netip.ParseAddr(p.HostIP)
	if err != nil || ip.IsUnspecified() {
		ip = netip.Addr{} // every address; one that is none is refused elsewhere
	}
	var inodes []string
	for _, table := range socketTables[p.Protocol] {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return 0, err
		}
		found, err := listening(f, ip, uint16(p.HostPort))
		if err := errors.Join(err, f.Close()); err != nil {
			return 0, fmt.Errorf("%s: %w", table, err)
		}
		inodes = append(inodes, found...)
	}
	if len(inodes) == 0 {
		return 0, nil
	}
	return holder(inodes)
}

// socketTables are the kernel's, by protocol; Pawl speaks no SCTP.
var socketTables = map[corev1.Protocol][]string{
	"": {"tcp", "tcp6"}, corev1.ProtocolTCP: {"tcp", "tcp6"}, corev1.ProtocolUDP: {"udp", "udp6"},
}

// The states of sockets that anybody may send to, as the tables have them.
const (
	stateListen      = "0A" // of TCP
	stateUnconnected = "07" // of UDP
)

// listening are the inodes of the sockets in a table that hear what is sent to
// the port of the address, or of any address when it is zero.
func listening(table io.Reader, ip netip.Addr, port uint16) (inodes []string, err error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != stateListen && f[3] != stateUnconnected {
			continue
		}
		at, ok := socketAddress(f[1])
		if !ok || at.Port() != port {
			continue
		}
		if !ip.IsValid() || at.Addr().IsUnspecified() || at.Addr() == ip {
			inodes = append(inodes, f[9])
		}
	}
	return inodes, lines.Err()
}

// socketAddress reads "0100007F:1CFC": words in the machine's order, which is
// little-endian wherever Pawl is built for; the port is a plain number.
func socketAddress(s string) (netip.AddrPort, bool) {
	words, number, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(words)
	port, portErr := strconv.ParseUint(number, 16, 16)
	if !ok || err != nil || portErr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), ok
}

// holder is a process of this program that has one of the sockets open; 0 when
// none has.
func holder(inodes []string) (int, error) {
	if holds("/proc/self", inodes) {
		return os.Getpid(), nil
	}
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		process := filepath.Join("/proc", e.Name())
		program, err := os.Stat(filepath.Join(process, "exe"))
		if err == nil && os.SameFile(program, own) && holds(process, inodes) {
			return pid, nil
		}
	}
	return 0, nil
}

// holds says whether a process has one of the sockets open. One that ended
// meanwhile has none.
func holds(process string, inodes []string) bool {
	dir := filepath.Join(process, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(to, "socket:["); ok && slices.Contains(inodes, strings.TrimSuffix(inode, "]")) {
			return true
		}
	}
	return false
}
