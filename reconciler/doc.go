// Package reconciler is the control plane: it turns commits into revisions,
// sets a revision beside a whole view of the actual state, plans, and writes
// the changes to the store. Run owns every goroutine of it.
//
// It refuses to decide (plan and placement do, as pure functions), to touch
// containers (the node agents do) and to act on a picture that is not whole.
package reconciler
