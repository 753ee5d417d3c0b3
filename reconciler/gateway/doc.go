// Package gateway is the only door between the store and the nodes. It tells
// each node's agent what is assigned to it, with the ConfigMaps and Secrets its
// pods use, gives it the tokens that its pods' specs ask for, and writes to the store
// what agents report.
//
// It refuses to decide anything: it removes no pod, moves none and judges no
// status. It believes a node's words only about that node and its own pods: those
// that it has, or had, by the cluster's signature. A store that was lost is
// rebuilt from such words.
package gateway
