package network

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/nftables"
)

// flush is what an administrator does who loads the firewall anew.
func (f *fixture) flush() {
	f.t.Helper()
	if err := f.onTables(func(c *nftables.Conn) error {
		c.FlushRuleset()
		return c.Flush()
	}); err != nil {
		f.t.Error(err)
	}
}

func (f *fixture) removeBridge() {
	f.t.Helper()
	host := f.host.handle()
	bridge, err := host.LinkByName(f.bridge)
	if err == nil {
		err = host.LinkDel(bridge)
	}
	if err != nil {
		f.t.Error(err)
	}
}

// What others remove from the host while the agent runs comes back by itself.
func TestWhatOthersRemove(t *testing.T) {
	f := newFixture(t, "")
	outside := f.uplink("192.0.2.1/24", "192.0.2.9/24")
	outside.serve(":80")
	pod := newNamespace(t)
	f.attach("a", pod)
	pod.serve(":80")
	f.publish("a", hostPortTo(8080, 80))
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Keep(ctx) }()
		for _, remove := range []func(){f.flush, f.removeBridge, func() { f.flush(); f.removeBridge() }} {
			remove()
			time.Sleep(keepEvery + time.Second)
			synctest.Wait()
			if missing, err := f.missing(); missing != "" || err != nil {
				t.Errorf("still missing: %s, %v", missing, err)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if got := pod.ask("192.0.2.9:80"); got != "192.0.2.1" {
		t.Errorf("the outside saw the pod as %q, want the host's 192.0.2.1", got)
	}
	if got := outside.ask("192.0.2.1:8080"); got != "192.0.2.9" {
		t.Errorf("by the node's port the pod saw %q, want 192.0.2.9", got)
	}
}

// A pod's ports end before its address is free, also where that fails at first.
func TestPortsEndBeforeTheAddressIsFree(t *testing.T) {
	f := newFixture(t, "")
	f.attach("a", newNamespace(t))
	f.publish("a", hostPortTo(8080, 80))
	f.hostNetns = "/nowhere"
	if err := f.Detach(t.Context(), "a"); err == nil {
		t.Fatal("the table of ports was made anew in no namespace")
	}
	f.hostNetns = f.host.path
	f.detach("a")
	if f.portTables() != 0 {
		t.Error("the port leads on to an address that is free")
	}
}

// Pods go though somebody removed the bridge.
func TestDetachWithoutABridge(t *testing.T) {
	f := newFixture(t, "")
	f.attach("a", newNamespace(t))
	f.attach("b", newNamespace(t))
	f.publish("a", hostPortTo(8080, 80))
	f.publish("b", hostPortTo(8081, 80))
	f.removeBridge()
	if err := f.Detach(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if known, err := f.Known(t.Context()); err != nil || len(known) != 1 {
		t.Errorf("addresses in use: %v, %v", known, err)
	}
}
