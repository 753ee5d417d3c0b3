package nodeagent_test

import (
	"fmt"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/nodeagent"
)

// A machine's address is that of the link by which it reaches others, and not of
// a bridge that somebody made before.
func TestHostIP(t *testing.T) {
	said := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, and the namespace with it
		said <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			for _, step := range []struct{ command, want string }{
				{"", ""},
				{"link add docker0 type bridge", ""},
				{"addr add 172.17.0.1/16 dev docker0", ""},
				{"link set docker0 up", "172.17.0.1"}, // nothing better is known
				{"link add uplink type bridge", "172.17.0.1"},
				{"addr add 198.51.100.7/24 dev uplink", "172.17.0.1"},
				{"link set uplink up", "172.17.0.1"},
				{"route add default via 198.51.100.1", "198.51.100.7"},
			} {
				if step.command != "" {
					if out, err := exec.Command("sh", "-c", "ip "+step.command).CombinedOutput(); err != nil {
						return fmt.Errorf("ip %s: %w: %s", step.command, err, out)
					}
				}
				if got := nodeagent.HostIP(); got != step.want {
					return fmt.Errorf("after %q it is %q, want %q", step.command, got, step.want)
				}
			}
			return nil
		}()
	}()
	if err := <-said; err != nil {
		t.Error(err)
	}
}
