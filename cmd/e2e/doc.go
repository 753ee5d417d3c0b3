// Package e2e holds tests only: the built binaries against real NATS, real Git
// and real containerd, as a user runs them. It is the one place that may see
// both halves.
package e2e
