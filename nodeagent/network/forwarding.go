package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
)

const forwardingFile = "/proc/sys/net/ipv4/ip_forward"

// changes remembers what was changed on the host that is not a link or table of
// ours, so that Teardown can put it back: one file, the setting's old value.
type changes struct{ dir string }

func (c changes) file() string { return filepath.Join(c.dir, "ip_forward.before") }

// enableForwarding lets the host route between pods and other links. The old
// value is recorded before it changes.
func (n *Network) enableForwarding() error {
	old, err := os.ReadFile(forwardingFile)
	if err != nil {
		return fmt.Errorf("read ip_forward: %w", err)
	}
	if strings.TrimSpace(string(old)) == "1" {
		return nil
	}
	if err := os.WriteFile(n.changes.file(), old, 0o644); err != nil {
		return fmt.Errorf("record the old value of ip_forward: %w", err)
	}
	if err := os.WriteFile(forwardingFile, []byte("1\n"), 0); err != nil {
		return fmt.Errorf("set ip_forward: %w", err)
	}
	n.log.Info("forwarding of IPv4 is now on (net.ipv4.ip_forward=1); taking the instance down puts it back")
	return nil
}

// restoreForwarding puts the old value back, if this instance changed it and no
// other bridge is there whose owner may rely on it by now.
func (n *Network) restoreForwarding(otherBridges []string) error {
	old, err := os.ReadFile(n.changes.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the old value of ip_forward: %w", err)
	}
	if len(otherBridges) > 0 {
		n.log.Info("forwarding of IPv4 stays on: others may rely on it", "links", otherBridges)
	} else if err := os.WriteFile(forwardingFile, old, 0); err != nil {
		return fmt.Errorf("put ip_forward back: %w", err)
	}
	return os.Remove(n.changes.file())
}

// onHostThread runs f on a thread that is in the host's network namespace:
// /proc/sys/net shows the namespace of whoever opens a file in it.
func (n *Network) onHostThread(f func() error) error {
	if n.hostNetns == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine and
		// nothing else can run in the wrong namespace.
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(n.hostNetns)
		if err != nil {
			done <- fmt.Errorf("open the host's network namespace: %w", err)
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter the host's network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
