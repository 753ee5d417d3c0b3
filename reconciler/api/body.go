package api

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
)

// maxBody is what a request may say, in bytes: what Kubernetes' server takes.
const maxBody = 3 << 20

// body reads what the request says.
func (q *request) body() ([]byte, error) {
	text, err := io.ReadAll(http.MaxBytesReader(q.w, q.r.Body, maxBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	if err != nil {
		return nil, apierrors.NewBadRequest("the body of the request cannot be read: " + err.Error())
	}
	return text, nil
}

// bodyMedia is the media of the request's body.
func bodyMedia(r *http.Request) string {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return string(jsonMedia)
	}
	return kind
}

// readBody decodes the request's body into an object, whichever media it is in.
// A body that says nothing of its kind is taken for the one that is expected.
func (q *request) readBody(into runtime.Object, expected k8sschema.GroupVersionKind) error {
	switch kind := bodyMedia(q.r); kind {
	case string(jsonMedia), string(yamlMedia), string(protoMedia):
	default:
		return notUnderstood(everyMedia)
	}
	text, err := q.body()
	if err != nil {
		return err
	}
	if len(text) == 0 {
		return nil
	}
	o, kind, err := codecs.UniversalDeserializer().Decode(text, &expected, into)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", expected.Kind, expected.Version, expected.Kind, err))
	}
	if o != into {
		return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): got %s", expected.Kind, kind.Kind))
	}
	return nil
}

func notUnderstood(media []media) error {
	names := make([]string, len(media))
	for i, m := range media {
		names[i] = string(m)
	}
	return statusError(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType,
		"the body of the request was in an unknown format - accepted media types include: "+strings.Join(names, ", "))
}
