// Package plan is the pure core of the reconciler: desired and actual in,
// changes out, one file per controller.
//
// It refuses to do: equal inputs give equal plans; no clock, no randomness, no
// map order, no goroutine, no I/O. Ties break by name, every change carries its
// reason, a second plan after applying the first is empty, and the answer says
// when to ask again if nothing else happens.
package plan
