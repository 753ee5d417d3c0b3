// Package network gives each pod of a node an IPv4 address on a bridge of the
// host, and the way out of the machine by masquerade.
//
// One veth pair joins the bridge and the pod's network namespace. The host
// reaches every pod, pods reach each other and the host, and what leaves by
// another link carries the host's address. Addresses are handed out round-robin
// from one range and are kept on disk, so that a restarted agent finds them.
//
// Ports of the node lead to pods that ask for it (hostPort), from outside, from
// other pods and from the node itself, by 127.0.0.1 too.
//
// Everything is done by netlink. The package touches only what is its own: the
// bridge it made (known by its alias), veths whose name begins with the
// instance's prefix, and two nftables tables. It refuses a range that another link
// already routes. It does not make network namespaces, knows nothing of services
// or of other nodes, and does no IPv6.
//
// Two things on the host are beyond it. Another table whose forward chain drops
// (Docker's, say) wins over our accept: Setup warns and names it. And where
// br_netfilter is loaded, frames between two pods pass the host's iptables too.
package network
