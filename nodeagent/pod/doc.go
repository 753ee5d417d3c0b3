// Package pod is the pure core of the node agent: the lifecycle of one pod.
// Next(want, seen, now) names the one next action; Status(want, seen, now) says
// what to report.
//
// It refuses to do: no clock, no randomness, no goroutine, no I/O. Time comes
// in as an argument and goes out as "ask me again at".
package pod
