package containerd

import (
	"testing"

	"github.com/pawl-project/pawl/nodeagent"
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
			return rt
		},
		Close: func(rt nodeagent.Runtime) {
			if err := rt.(*Runtime).Close(); err != nil {
				t.Error(err)
			}
		},
		Image: "busybox:1.37",
	})
}
