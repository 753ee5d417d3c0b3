// Package cache holds every object that the API shows, ordered by version, with
// a window of the newest changes from which watches resume.
//
// A version is a resourceVersion: one number for the whole cache that only
// grows. It is given by whoever puts an object in (the time, in ns, at which the
// store took its newest part) and raised where it would not grow.
//
// There is one ring of events for each kind, shared by all who watch it: a
// watcher is a place in the ring and a wake-up, so that a thousand of them cost
// little. Who falls behind the window is told so, and lists again. Encodings are
// made once for all readers, and dropped when nobody wants them any more.
//
// The package refuses to know where objects come from, starts no goroutine, and
// copies nothing for its readers: what it hands out is shared and read-only.
package cache
