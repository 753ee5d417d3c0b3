package main

import (
	"net"
	"net/netip"
	"net/url"

	"github.com/pawl-project/pawl/reconciler/access"
)

// podAPI says where pods of this machine reach the front door: pods with an
// address of their own, and those on the node's network. "" is nowhere: nothing
// is promised to a pod that does not answer it. The certificate of the cluster's
// authority is good for every address; one's own only for its names.
func (c *upConfig) podAPI(door *access.Access, bridge netip.Addr) (pod, host string) {
	at, err := url.Parse(door.URL())
	if err != nil {
		return "", ""
	}
	name, port, err := net.SplitHostPort(c.http)
	if err != nil {
		return "", ""
	}
	host = at.Host
	switch ip, err := netip.ParseAddr(name); {
	case name == "localhost", err == nil && ip.IsLoopback():
		return "", host
	case c.tls.CertFile == "" && (name == "" || err == nil && ip.IsUnspecified()):
		return net.JoinHostPort(bridge.String(), port), host
	default:
		return host, host
	}
}
