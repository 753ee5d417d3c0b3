// Package nodeagent keeps a node's containers as they are assigned. Run has one
// worker per pod; each wakes, looks what there is (Runtime.SeenPod), asks
// package pod for the next step, does it and looks again. A wake-up carries no
// data, so a lost or doubled one costs nothing.
//
// It can be killed at any moment: what it was assigned lies on disk before it
// acts, what it did is read from the runtime, and containers run on without it.
// Of what it does not know it removes nothing while it cannot tell what it is:
//
//   - a pod it has a record of goes only by its deletionTimestamp or an explicit
//     removal, never because a set does not name it;
//   - a remnant, which is something the runtime or the volumes hold for a uid of
//     which there is no record, cannot be rebuilt or reported, as its spec is
//     lost. It is stopped gracefully and removed once a whole set from the
//     gateway does not name it either.
//
// A panic in a worker ends the process: it is a bug, the containers do not mind,
// and a restarted agent looks at everything afresh, which a repaired half of one
// would not.
//
// It refuses to decide where pods run, and to speak to a container runtime or
// mount anything itself: Runtime and Volumes do.
package nodeagent
