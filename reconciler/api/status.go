package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

const (
	reasonNotAcceptable = metav1.StatusReasonNotAcceptable
	reasonMethod        = metav1.StatusReasonMethodNotAllowed
)

var statusKind = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}

// statusError is a failure that apimachinery has no constructor for.
func statusError(code int, reason metav1.StatusReason, message string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	}}
}

// noSuchResource is the answer for a path that names nothing.
func noSuchResource() error {
	err := statusError(http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	err.ErrStatus.Details = &metav1.StatusDetails{}
	return err
}

// methodNotAllowed is the answer to a method that a path does not have.
func methodNotAllowed() error {
	return statusError(http.StatusMethodNotAllowed, reasonMethod, "the server does not allow this method on the requested resource")
}

// statusOf is an error in Kubernetes' words. Those that say nothing of who acts
// next are faults of ours: 500.
func statusOf(err error, gr k8sschema.GroupResource, name string) metav1.Status {
	var api apierrors.APIStatus
	var ahead *cache.TooLarge
	switch {
	case errors.As(err, &api):
		return withKind(api.Status())
	case errors.Is(err, cache.ErrGone):
		return withKind(apierrors.NewResourceExpired(err.Error()).ErrStatus)
	case errors.As(err, &ahead): // Kubernetes: 504, come back in a second
		return withKind(apierrors.NewTimeoutError(err.Error(), 1).ErrStatus)
	case errors.Is(err, schema.ErrNotFound):
		return withKind(apierrors.NewNotFound(gr, name).ErrStatus)
	case errors.Is(err, schema.ErrConflict):
		return withKind(apierrors.NewConflict(gr, name, err).ErrStatus)
	case errors.Is(err, schema.ErrRefused):
		return withKind(apierrors.NewBadRequest(err.Error()).ErrStatus)
	case errors.Is(err, schema.ErrUnavailable):
		return withKind(unavailable(err.Error()).ErrStatus)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return withKind(apierrors.NewTimeoutError(err.Error(), 1).ErrStatus)
	}
	return withKind(apierrors.NewInternalError(err).ErrStatus)
}

func withKind(s metav1.Status) metav1.Status {
	s.TypeMeta = statusKind
	return s
}

// unavailable asks the caller to come back in a second.
func unavailable(why string) *apierrors.StatusError {
	err := apierrors.NewServiceUnavailable(why)
	err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return err
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error, gr k8sschema.GroupResource, name string) {
	status := statusOf(err, gr, name)
	if status.Code == http.StatusInternalServerError {
		s.Logger.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if d := status.Details; d != nil && d.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	s.writeObject(w, r, int(status.Code), errorForm(r), &status)
}
