// Package natsserver is the embedded NATS server: JetStream on file storage for
// the store, and the two accounts that keep node agents away from it (the why
// stands in accounts.go). It makes keys and credentials, and nothing else knows
// how they look.
//
// It refuses to listen where other machines reach it, since it has no TLS yet;
// to start on a store that it cannot read whole; and to delete anything.
package natsserver
