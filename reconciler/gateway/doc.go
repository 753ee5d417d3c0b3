// Package gateway is the only door between the store and the nodes. It tells
// each node's agent what is assigned to it, with the ConfigMaps and Secrets its
// pods use, gives it the tokens that its pods' specs ask for, and writes to the store
// what agents report.
//
// It refuses to decide anything: it removes no pod, moves none and judges no
// status. It believes a node's words only about that node and its own pods; of
// these also that they are its own, when nobody else has them: a store that was
// lost is rebuilt from such words. A hostile node can so invent a pod, and be
// given what it uses.
package gateway
