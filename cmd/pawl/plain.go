package main

import (
	"errors"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/pawl-project/pawl/schema"
)

// A plain error says what a person reads, without its class after it.
type plain struct {
	text  string
	class error // one of schema's
}

func (p plain) Error() string { return p.text }

// Unwrap makes errors.Is tell the class.
func (p plain) Unwrap() error { return p.class }

// message is how an error of a verb is printed: as kubectl's commands do it
// when it is the server's, so that both read the same. Its class is left out.
func message(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if text, ok := cmdutil.StandardErrorMessage(err); ok {
			return text
		}
	}
	text := err.Error()
	for _, class := range []error{schema.ErrRefused, schema.ErrUnavailable, schema.ErrConflict, schema.ErrNotFound} {
		if errors.Is(err, class) {
			text = strings.TrimSuffix(text, ": "+class.Error())
		}
	}
	return "error: " + text
}
