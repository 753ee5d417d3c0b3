// Package feed keeps the API's cache: it composes what the API shows from what
// the store's views hold.
//
// An object of the API is made of several keys: a pod of its assignment and its
// node's report, a Deployment of its manifest and its status. How, say pure
// functions (pod.go, compose.go, namespaces.go): what the store holds in, the
// object and the time of its newest part out. The running part (feed.go) calls
// them for the keys that changed, and knows no kind.
//
// The package refuses to decide anything and to write to the store. It never
// changes what a view holds: it copies the struct and shares the rest. Secrets
// stay sealed. An object vanishes from the API only when the store says that it
// is gone; what a store has lost, without a deletion, is given time to come back.
package feed
