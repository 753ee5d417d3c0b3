// Package manifest turns the files of a commit into typed, defaulted objects,
// or into a refusal that names every fault with file, line and column. It is
// pure: equal trees give equal answers, whoever asks (the push, the reconciler,
// `pawl validate`).
//
// One document walks: text → node (a tree with positions, decoded strictly:
// duplicate keys, alias bombs and odd scalars are faults) → conversion of old
// API versions and of List → the shape, which is the closed CUE definitions of
// package schema read once into a table of fields → the typed object of
// k8s.io/api → an API server's defaults → the rules that span several fields.
// The same node feeds every step, so that no two of them can see different
// things, and every fault is positioned at the manifest.
//
// The definitions in schema/*.cue are the one statement of which fields exist,
// of their types, enumerations, bounds and patterns, and of what Pawl does with
// each (attribute @pawl). The shape understands the plain part of CUE that they
// are written in and refuses to load anything else; a test holds it equal to
// CUE's own evaluator.
//
// # CUE in a repository
//
// A .cue file whose top-level value is an object (with apiVersion and kind), or
// whose top-level fields are objects or lists of objects, is a manifest. Hidden
// fields, definitions and other values are helpers. Files of one directory with
// the same package clause are one instance; a file without one stands alone.
// The definitions of Pawl are in scope by name (`web: #Deployment & {…}`).
//
// cluster.cue and policy/*.cue at the root of the tree are the cluster's own
// constraints: every top-level field named like a kind is unified with every
// object of that kind, `Any` with every object:
//
//	Deployment: spec: replicas: <=10
//	Any: metadata: labels: team!: string
//
// A constraint may also add fields, which are then part of the object. A fault
// is positioned at the manifest and names the file of the constraint.
//
// All CUE of a repository is evaluated in a child process with limits on
// memory, CPU time and wall time, because a few bytes of CUE can eat all of
// them (see ChildMain). It sees the CUE files of the tree and nothing else: no
// modules, no network, no file system, no tool commands.
//
// The package refuses to guess: a field that Kubernetes knows and Pawl does not
// act on is refused by name or accepted with a warning, never dropped.
package manifest
