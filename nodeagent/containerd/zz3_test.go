package containerd

import (
	"fmt"
	"testing"
)

func TestZZ3(t *testing.T) {
	g := newRig(t)
	for i := range 60 {
		p := g.pod(fmt.Sprint("x", i))
		p.add("main", "sleep", "1000000")
		p.sandbox()
		p.start("main", 0)
		p.remove()
	}
}
