package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pawl-project/pawl/schema"
)

// listOptions are the options of a list, a watch or the deletion of many.
type listOptions struct {
	internalversion.ListOptions
	version uint64 // ResourceVersion as a number; 0 when there is none
	filter  filter
}

// A filter says which objects a caller wants.
type filter struct {
	labels labels.Selector // nil: any
	fields fields.Selector // nil: any
	table  map[string]fieldOf
}

func (f filter) everything() bool { return f.labels == nil && f.fields == nil }

func (f filter) matches(o schema.Object) bool {
	if f.labels != nil && !f.labels.Matches(labels.Set(o.GetLabels())) {
		return false
	}
	return f.fields == nil || f.fields.Matches(view{f.table, o})
}

// options reads the query of a list or a watch, and checks it.
func (q *request) options() (listOptions, error) {
	var o listOptions
	if err := internalscheme.ParameterCodec.DecodeParameters(q.r.URL.Query(), metav1.SchemeGroupVersion, &o.ListOptions); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	o.Watch = q.verb == "watch"
	if faults := validation.ValidateListOptions(&o.ListOptions, true); len(faults) > 0 {
		return o, apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", faults)
	}
	o.filter.table = q.res.fields.fields
	if o.LabelSelector != nil && !o.LabelSelector.Empty() {
		o.filter.labels = o.LabelSelector
	}
	if o.FieldSelector != nil && !o.FieldSelector.Empty() {
		if err := q.res.fields.check(o.FieldSelector); err != nil {
			return o, apierrors.NewBadRequest(err.Error())
		}
		o.filter.fields = o.FieldSelector
	}
	if q.t.legacyWatch && q.t.name != "" {
		o.filter.fields = fields.OneTermEqualSelector("metadata.name", q.t.name)
	}
	var err error
	o.version, err = parseVersion(o.ResourceVersion)
	return o, err
}

func parseVersion(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion: Invalid value: %q: %v", s, err))
	}
	return v, nil
}

// waitForVersion bounds how long a caller waits for a version that is not there
// yet, as in Kubernetes.
const waitForVersion = 3 * time.Second

// notOlderThan waits until the cache is as new as a caller has seen it before.
func (q *request) notOlderThan(version string) error {
	v, err := parseVersion(version)
	if err != nil || v <= q.Cache.Version() {
		return err
	}
	ctx, cancel := context.WithTimeout(q.r.Context(), waitForVersion)
	defer cancel()
	err = q.Cache.Wait(ctx, v)
	if errors.Is(err, context.DeadlineExceeded) {
		return tooLarge(v, q.Cache.Version())
	}
	return err
}

func tooLarge(want, have uint64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", want, have), 1)
	err.ErrStatus.Code = http.StatusGatewayTimeout
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}
