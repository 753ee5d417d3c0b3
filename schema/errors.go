package schema

import (
	"errors"
	"strings"
)

// An error says who acts next; every package wraps one of these so that the
// caller can tell with errors.Is. An error that is none of them is a bug.
var (
	// ErrRefused: the author of the input acts. Retrying cannot help.
	ErrRefused = errors.New("refused")
	// ErrUnavailable: time acts. Retry with growing, jittered pauses.
	ErrUnavailable = errors.New("unavailable")
	// ErrConflict: somebody wrote first. Forget the decision and look again.
	ErrConflict = errors.New("conflict")
	// ErrNotFound: the thing asked for is not there.
	ErrNotFound = errors.New("not found")
)

// Text is an error's text for people: the class at its end is left out where it
// says nothing that the text before does not. "not found" and "conflict" do.
func Text(err error) string {
	text := err.Error()
	for _, class := range []error{ErrUnavailable, ErrRefused} {
		text = strings.TrimSuffix(text, ": "+class.Error())
	}
	return text
}
