package containerd

import "testing"

// A container that is removed while all are listed does not come back by the list.
func TestRemovedWhileAllAreListed(t *testing.T) {
	g := newRig(t)
	p := g.pod("gone")
	p.add("main", "true")
	p.run()
	list, err := g.rt.client.ContainerService().List(g.ctx)
	if err != nil {
		t.Fatal(err)
	}
	g.rt.mu.Lock()
	g.rt.dropped = map[string]bool{}
	g.rt.mu.Unlock()
	p.remove()
	g.rt.takeUp(list, true)
	if s := p.look(); len(s.Containers) > 0 {
		t.Errorf("it is back: %+v", s.Containers)
	}
}
