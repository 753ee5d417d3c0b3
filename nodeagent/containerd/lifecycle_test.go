package containerd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/nodeagent/runtimetest"
)

// TestSuite is what every runtime must pass.
func TestSuite(t *testing.T) {
	g := newRig(t)
	runtimetest.Run(t, runtimetest.Subject{
		Open: func(t *testing.T) nodeagent.Runtime {
			rt, err := New(g.opts)
			if err != nil {
				t.Fatal(err)
			}
			return patient{rt, g, t}
		},
		Close: func(rt nodeagent.Runtime) {
			if err := rt.(patient).Close(); err != nil {
				t.Error(err)
			}
		},
		Image: "busybox:1.37",
	})
}

// patient returns from Start when a shell that is to honour TERM has come to its
// trap: the kernel drops TERM for a first process that has no handler for it.
type patient struct {
	*Runtime
	g *rig
	t *testing.T
}

func (p patient) Start(ctx context.Context, q nodeagent.StartRequest) (pod.Container, error) {
	c, err := p.Runtime.Start(ctx, q)
	if err == nil && c.State == pod.ContainerRunning && runtimetest.HonoursTERM.Is(q.Container.Command) {
		pid := p.g.pidOf(c.ID)
		eventually(p.t, "it would honour TERM", func() bool { return catches(p.t, pid, unix.SIGTERM) })
	}
	return c, err
}

// catches says whether a container's process has a handler for a signal. runc,
// which it is at first, has one for every signal, and they end with it.
func catches(tb testing.TB, pid int, signal unix.Signal) bool {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Name:\trunc") {
			return false
		}
		if hex, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return mask&(1<<(signal-1)) != 0
		}
	}
	return false
}
