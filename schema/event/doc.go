// Package event makes Kubernetes Events of news: it counts what happens again,
// folds what is alike, and holds back an object that says too much.
//
// Whoever has news (the reconciler about its changes, an agent about its pods)
// keeps one Recorder and hands on what it returns. The package decides only: it
// has no clock, sends nothing and remembers a bounded number of objects. What it
// forgets begins again as a new Event, with a name of its own.
package event
