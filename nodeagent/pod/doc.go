// Package pod is the pure core of the node agent: the lifecycle of one pod.
// Next(want, seen, known, now) names the next actions; Status, of the same
// arguments, says what to report. Both read the pod through one view, so what
// is reported is what is being done.
//
//	sandbox and volumes ── init containers, one by one ── app containers ── rest
//	       each container: pull → start → run → exit → back off → pull → …
//	deleted: stop ── kill after the grace period ── remove ── volumes, sandbox ── gone
//
// It refuses to do: no clock, no randomness, no goroutine, no I/O. Time comes
// in as an argument and goes out as "ask me again at". It remembers nothing:
// what must outlive the agent stands in Seen, kept by the runtime.
package pod
