package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// nodeError is an error of the pod's node, or of the way to it, as the API tells it.
func nodeError(p *corev1.Pod, err error) error {
	var api *apierrors.StatusError
	if errors.As(err, &api) {
		return err
	}
	text := plainText(err)
	switch {
	case errors.Is(err, schema.ErrRefused):
		return apierrors.NewBadRequest(text)
	case errors.Is(err, schema.ErrNotFound):
		return withText(apierrors.NewNotFound(corev1.Resource("pods"), p.Name), text)
	case errors.Is(err, schema.ErrConflict):
		return withText(apierrors.NewConflict(corev1.Resource("pods"), p.Name, err), text)
	case errors.Is(err, context.DeadlineExceeded):
		return apierrors.NewTimeoutError(fmt.Sprintf("node %s did not answer in time", p.Spec.NodeName), 0)
	case errors.Is(err, schema.ErrUnavailable):
		return apierrors.NewServiceUnavailable(unreachable(p.Spec.NodeName, text))
	}
	return apierrors.NewInternalError(errors.New(text))
}

// unreachable words what the way to the node says.
func unreachable(node, text string) string {
	if reason, ok := strings.CutPrefix(text, "stream to node "+node+": "); ok {
		return "node " + node + " cannot be reached: " + reason
	}
	return text
}

// plainText is an error without the class that the other side gave it.
func plainText(err error) string {
	var s *kv.StreamError
	if errors.As(err, &s) {
		return s.Text
	}
	return schema.Text(err)
}

// withText keeps an error's code and reason and says it in other words.
func withText(err *apierrors.StatusError, text string) *apierrors.StatusError {
	err.ErrStatus.Message = text
	return err
}

// statusOf is the metav1.Status of an error.
func statusOf(err error) metav1.Status {
	var api *apierrors.StatusError
	if !errors.As(err, &api) {
		api = apierrors.NewInternalError(err)
	}
	status := api.ErrStatus
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return status
}

func writeError(w http.ResponseWriter, err error) {
	status := statusOf(err)
	text, err := json.Marshal(&status)
	if err != nil { // three strings and a number always have a JSON form
		panic(err)
	}
	if d := status.Details; d != nil && d.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(append(text, '\n')) //nolint:errcheck // there is nobody left to tell
}

// resultStatus is how a command ended, as clients read it from the error stream.
func resultStatus(r kv.StreamResult, doing string) metav1.Status {
	if r.Error != "" {
		return statusOf(apierrors.NewInternalError(errors.New("error " + doing + " container: " + r.Error)))
	}
	if r.ExitCode == 0 {
		return metav1.Status{Status: metav1.StatusSuccess}
	}
	code := r.ExitCode
	if code < 0 || code > 255 { // clients read eight bits
		code = 255
	}
	return metav1.Status{
		Status:  metav1.StatusFailure,
		Reason:  remotecommand.NonZeroExitCodeReason,
		Message: fmt.Sprintf("command terminated with non-zero exit code: exit code %d", r.ExitCode),
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{
			Type:    remotecommand.ExitCodeCauseType,
			Message: strconv.Itoa(code),
		}}},
	}
}
