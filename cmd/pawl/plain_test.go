package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// The class of an error is for programs: people read what was said before it.
func TestMessagesWithoutTheirClass(t *testing.T) {
	for _, e := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("image web:7: not on this node: %w", schema.ErrNotFound), "error: image web:7: not on this node"},
		{fmt.Errorf("image name %q: must be lowercase: %w", "BAD", schema.ErrRefused), `error: image name "BAD": must be lowercase`},
		{schema.ErrUnavailable, "error: " + schema.ErrUnavailable.Error()},
		{errors.New("open /x: " + schema.ErrRefused.Error()), "error: open /x: " + schema.ErrRefused.Error()},
	} {
		if got := message(e.err); got != e.want {
			t.Errorf("%q, want %q", got, e.want)
		}
	}
}
