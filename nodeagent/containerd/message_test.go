package containerd

import (
	"testing"

	"github.com/pawl-project/pawl/nodeagent/diskuse"
)

// What a container writes as its termination message lies on the node's disk:
// it is measured with the pod, and so comes under its limit for ephemeral
// storage and, without one, under the node's for its disk.
func TestMessageIsMeasured(t *testing.T) {
	g := newRig(t)
	p := g.pod("talker")
	const written = 8 << 20
	p.add("main", "sh", "-c", "head -c 8388608 /dev/zero > /words").TerminationMessagePath = "/words"
	if c, out := p.run(); c.ExitCode != 0 {
		t.Fatalf("exit code %d: %s", c.ExitCode, out)
	}
	places, err := g.rt.Places(g.ctx)
	if err != nil {
		t.Fatal(err)
	}
	var total uint64
	for _, place := range places {
		if place.UID != p.UID || place.Container != "main" {
			t.Errorf("a place of somebody else: %+v", place)
		}
		u, err := diskuse.Of(t.Context(), place.Path)
		if err != nil {
			t.Fatal(err)
		}
		total += u.Bytes
	}
	if total < written {
		t.Errorf("%d bytes are counted, %d were written", total, written)
	}
	if c := p.look().Containers[0]; len(c.Message) != 4096 {
		t.Errorf("the message has %d bytes, want the last 4096", len(c.Message))
	}
	p.remove()
}
