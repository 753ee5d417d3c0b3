// Package kv is the store: the bucket map and key grammar (layout.go), writes
// by compare-and-set (store.go), whole views kept by ordered watches (view.go),
// the subjects and messages of the node protocol (protocol.go, agent.go,
// door.go), and streams of bytes to and from nodes (stream.go). It is the only
// importer of nats.go.
//
// It refuses to decide anything, and it offers no Get to decide from: NATS KV
// has no read-after-write, so decisions are made from views and written with
// the revision seen.
package kv
