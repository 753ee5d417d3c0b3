package main

import (
	"context"
	"io"
)

// An input is what somebody types or pipes in, until ctx is done: who interrupts
// a verb that waits for more does not wait for it too.
type input struct {
	ctx  context.Context //nolint:containedctx // of the verb that reads
	from io.Reader
}

// Read implements io.Reader.
func (i input) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	buffer, done := make([]byte, len(p)), make(chan result, 1) // p is the caller's again when it is interrupted
	go func() {
		n, err := i.from.Read(buffer)
		done <- result{n, err}
	}()
	select {
	case <-i.ctx.Done():
		return 0, context.Cause(i.ctx)
	case r := <-done:
		return copy(p, buffer[:r.n]), r.err
	}
}
