package main

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
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
// when it is the server's, so that both read the same.
func message(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if text, ok := cmdutil.StandardErrorMessage(err); ok {
			return text
		}
	}
	return "error: " + err.Error()
}
