package main

import (
	"net/netip"
	"testing"

	"github.com/pawl-project/pawl/reconciler/access"
)

// A pod is told of an address only when something there answers it.
func TestWherePodsReachTheAPI(t *testing.T) {
	bridge := netip.MustParseAddr("10.42.0.1")
	for _, x := range []struct{ http, pod, host string }{
		{"127.0.0.1:7420", "", "127.0.0.1:7420"},
		{"localhost:7420", "", "localhost:7420"},
		{"[::1]:7420", "", "[::1]:7420"},
		{"0.0.0.0:7420", "10.42.0.1:7420", "127.0.0.1:7420"},
		{":7420", "10.42.0.1:7420", "127.0.0.1:7420"},
		{"[::]:7420", "10.42.0.1:7420", "127.0.0.1:7420"},
		{"192.0.2.7:443", "192.0.2.7:443", "192.0.2.7:443"},
		{"pawl.example.org:443", "pawl.example.org:443", "pawl.example.org:443"},
	} {
		c := &upConfig{http: x.http}
		door, err := access.Open(access.Options{DataDir: t.TempDir(), TLS: access.TLSOptions{Listen: x.http}})
		if err != nil {
			t.Fatal(err)
		}
		if pod, host := c.podAPI(door, bridge); pod != x.pod || host != x.host {
			t.Errorf("--http %s: %q and on the node's network %q, want %q and %q", x.http, pod, host, x.pod, x.host)
		}
	}
}
