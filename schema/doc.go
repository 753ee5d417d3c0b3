// Package schema holds the nouns that the reconciler and the node agent both
// speak, and the CUE definitions (*.cue, embedded) that decide what may enter
// the desired state.
//
// Kubernetes kinds are the k8s.io/api types and are never redefined here; own
// types exist only for what Kubernetes has no noun for: a Commit and its Tree,
// a Revision, a Refusal with its Faults, an Assignment, a PodReport.
//
// The package refuses to do anything: it reads no file, opens no connection and
// knows no clock. It is a leaf, so that every other package may import it.
package schema
