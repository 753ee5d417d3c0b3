package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"
)

// A verb that waits for input can be interrupted.
func TestInterruptedWhileItReads(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	from, typed := io.Pipe()
	defer typed.Close()
	ended := make(chan error, 1)
	go func() { ended <- validate(ctx, "-", "", from, io.Discard, io.Discard) }()
	if _, err := typed.Write([]byte("apiVersion: v1\n")); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits for more")
	}
	if err := iotest.TestReader(input{t.Context(), iotest.OneByteReader(io.LimitReader(zeros{}, 1000))}, make([]byte, 1000)); err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
