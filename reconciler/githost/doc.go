// Package githost is the built-in repository: smart HTTP through
// git http-backend, with the verdict on a push printed in the pusher's terminal
// before anything has changed.
//
// One push goes like this:
//
//	git push ──HTTP──▶ Host.ServeHTTP ──CGI──▶ http-backend ─▶ receive-pack
//	                        ▲   │                                  │ objects into a quarantine
//	                        │   └─ answer ◀──── two FIFOs ────▶ pre-receive (a few lines of sh)
//	                        │      Check(commit)                   │ accept or refuse
//	                        └─ Pushed(commit) ◀── the reference moved, and is on disk
//
// Whatever dies on the way, the push is whole or it never was: receive-pack
// moves the reference after the hook accepted, the hook refuses when the daemon
// goes away, and Head finds at the next start what was accepted but not handed on.
//
// The package refuses to speak Git's protocol itself, to decide who may come in
// (its Guard does) or serve anybody else, to serve files other than through
// smart HTTP, and to pass anything a user wrote to a shell.
//
// Decisions: the deployed branch cannot be deleted (there would be nothing to
// turn towards), but it may be force-pushed (going back to an older commit is
// how one undoes). Other branches are for review: they are checked, their faults
// are printed as warnings, and they are accepted.
package githost
