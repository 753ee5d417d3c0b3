// Package plan is the pure core of the reconciler: desired and actual in,
// changes out, one file per controller.
//
// It refuses to do: equal inputs give equal plans; no clock, no randomness, no
// map order, no goroutine, no I/O. Ties break by name, every change carries its
// reason, a second plan after applying the first is empty, and the answer says
// when to ask again if nothing else happens.
//
// The world falls into roots (root.go): a Deployment, ReplicaSet,
// ReplicationController or bare Pod together with all that was made for it. A
// root is planned on its own, from what belongs to it; only room on the nodes is
// shared, and pods without a node are placed after the roots, in one queue
// (queue.go). Plan looks at every root; a Planner (planner.go) is told what
// changed and looks only at the roots which that concerns.
//
// A pod passes through these forms, each one key in the store:
//
//	wanted ──► record      nothing fits yet: pawl-actual pods.…, no node, phase Pending
//	  │           │
//	  └──► assignment      pawl-assignments; the node's agent starts it and reports
//	              │
//	       assignment with deletionTimestamp: the agent stops it
//	              │
//	       report Gone     the assignment and the report are deleted
//
// What Kubernetes does otherwise, and why Pawl does not:
//
//   - A pod or ReplicaSet that stands in the repository is never adopted by
//     another owner whose selector matches it: the repository says that it
//     stands by itself.
//   - A bare Pod whose manifest changed, even in a label, is replaced: what a
//     node was assigned never changes for one uid.
//   - A Failed or Succeeded pod of a ReplicaSet is removed when it is replaced,
//     and replaced no sooner than 10 s after it was made.
//   - A namespace needs no Namespace object: naming it in a manifest is enough.
package plan
