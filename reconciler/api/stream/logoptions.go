package stream

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A queryReader reads parameters as Kubernetes does; the first fault stays.
type queryReader struct {
	query url.Values
	err   error
}

// logOptions reads and judges the parameters of a log.
func logOptions(pod string, q url.Values) (*corev1.PodLogOptions, error) {
	r := queryReader{query: q}
	o := &corev1.PodLogOptions{
		Container:                    q.Get("container"),
		Follow:                       r.flag("follow"),
		Previous:                     r.flag("previous"),
		SinceSeconds:                 r.number("sinceSeconds"),
		SinceTime:                    r.time("sinceTime"),
		Timestamps:                   r.flag("timestamps"),
		TailLines:                    r.number("tailLines"),
		LimitBytes:                   r.number("limitBytes"),
		InsecureSkipTLSVerifyBackend: r.flag("insecureSkipTLSVerifyBackend"),
		Stream:                       r.text("stream"),
	}
	if r.err != nil {
		return nil, apierrors.NewBadRequest(r.err.Error())
	}
	if faults := judgeLog(o); len(faults) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), pod, faults)
	}
	return o, nil
}

// judgeLog says what Kubernetes says of options that make no sense.
func judgeLog(o *corev1.PodLogOptions) field.ErrorList {
	var faults field.ErrorList
	if o.TailLines != nil && *o.TailLines < 0 {
		faults = append(faults, field.Invalid(field.NewPath("tailLines"), *o.TailLines, "must be greater than or equal to 0"))
	}
	if o.LimitBytes != nil && *o.LimitBytes < 1 {
		faults = append(faults, field.Invalid(field.NewPath("limitBytes"), *o.LimitBytes, "must be greater than 0"))
	}
	switch {
	case o.SinceSeconds != nil && o.SinceTime != nil:
		faults = append(faults, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		faults = append(faults, field.Invalid(field.NewPath("sinceSeconds"), *o.SinceSeconds, "must be greater than 0"))
	}
	return append(faults, judgeLogStream(o)...)
}

func judgeLogStream(o *corev1.PodLogOptions) field.ErrorList {
	if o.Stream == nil {
		return nil
	}
	var faults field.ErrorList
	switch *o.Stream {
	case corev1.LogStreamAll:
		return nil
	case corev1.LogStreamStdout, corev1.LogStreamStderr:
	default:
		faults = append(faults, field.NotSupported(field.NewPath("stream"), *o.Stream, []string{corev1.LogStreamAll, corev1.LogStreamStderr, corev1.LogStreamStdout}))
	}
	if o.TailLines != nil {
		faults = append(faults, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
	}
	return faults
}

// flag is true for a parameter that is there and neither "false" nor "0".
func (r *queryReader) flag(name string) bool {
	v, there := r.query[name]
	return there && (len(v) == 0 || !strings.EqualFold(v[0], "false") && v[0] != "0")
}

func (r *queryReader) text(name string) *string {
	if !r.query.Has(name) {
		return nil
	}
	v := r.query.Get(name)
	return &v
}

func (r *queryReader) number(name string) *int64 {
	text := r.text(name)
	if text == nil {
		return nil
	}
	n, err := strconv.ParseInt(*text, 10, 64)
	r.fault(err)
	return &n
}

func (r *queryReader) time(name string) *metav1.Time {
	text := r.text(name)
	if text == nil || *text == "" || *text == "null" {
		return nil
	}
	t, err := time.Parse(time.RFC3339, *text)
	r.fault(err)
	return &metav1.Time{Time: t}
}

func (r *queryReader) fault(err error) {
	if r.err == nil {
		r.err = err
	}
}
