package schema_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

func TestText(t *testing.T) {
	for want, err := range map[string]error{
		"no such host":           fmt.Errorf("no such host: %w", schema.ErrUnavailable),
		"a field that is not":    fmt.Errorf("a field that is not: %w", schema.ErrRefused),
		"image web:7: not found": fmt.Errorf("image web:7: %w", schema.ErrNotFound),
		"unavailable":            schema.ErrUnavailable,
		"is unavailable":         errors.New("is unavailable"),
	} {
		if got := schema.Text(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
