// Package api is the front door: the Kubernetes REST API over a cache of what
// the cluster wants and what it is, so that people's tools work unchanged.
//
// A resource is one row of one table (resource.go); a row buys every verb: get,
// list, watch, Table, discovery, selectors, and the refusals. A request goes
// through the rooms of this package in this order: its path says what is meant
// (path.go), the caller's role whether it may be (server.go), its Accept header
// in which form it is answered (accept.go), and the verb's own file does it.
//
// Objects come encoded from the cache and are joined here, so that nothing is
// encoded twice for two callers. The exception are Secrets: they are opened for
// one answer and forgotten.
//
// It refuses to change desired state, which is Git's: such a write is answered
// with the file to edit. It stores nothing, knows no NATS and no node, and does
// not authenticate: without a user in the request's context nothing is answered.
package api
