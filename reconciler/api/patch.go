package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

// The media in which a patch comes.
const (
	jsonPatch      = string(types.JSONPatchType)
	mergePatch     = string(types.MergePatchType)
	strategicPatch = string(types.StrategicMergePatchType)
	applyPatch     = string(types.ApplyYAMLPatchType)
)

// maxOperations bounds what a JSON patch may do.
const maxOperations = 1000

// patched is an object as a patch makes it.
func (q *request) patched(was schema.Object, patch []byte) (*unstructured.Unstructured, error) {
	kind := bodyMedia(q.r)
	if kind == applyPatch {
		if q.r.URL.Query().Get("fieldManager") == "" {
			return nil, apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("PatchOptions").GroupKind(), "",
				field.ErrorList{field.Required(field.NewPath("fieldManager"), "is required for apply patch")})
		}
		if was == nil {
			return q.fromYAML(patch)
		}
	}
	before, err := json.Marshal(was)
	if err != nil {
		return nil, err
	}
	var after []byte
	switch kind {
	case jsonPatch:
		after, err = operate(before, patch)
	case mergePatch:
		after, err = jsonpatch.MergePatch(before, patch)
	case strategicPatch:
		after, err = strategicpatch.StrategicMergePatch(before, patch, q.res.empty())
	case applyPatch:
		after, err = q.applied(before, patch)
	default:
		return nil, notUnderstood([]media{media(jsonPatch), media(mergePatch), media(strategicPatch), media(applyPatch)})
	}
	if said := (*apierrors.StatusError)(nil); errors.As(err, &said) {
		return nil, said
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return q.fromYAML(after)
}

func operate(before, patch []byte) ([]byte, error) {
	operations, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, err
	}
	if len(operations) > maxOperations {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(operations)))
	}
	if !slices.ContainsFunc(operations, func(o jsonpatch.Operation) bool { return o.Kind() == "copy" }) {
		after, err := operations.Apply(before)
		return after, cannotBeDone(err)
	}
	// Copies can double an object again and again, so each is looked at.
	for n := range operations {
		if before, err = operations[n : n+1].Apply(before); err != nil {
			return nil, cannotBeDone(err)
		}
		if len(before) > maxBody {
			return nil, fmt.Errorf("the patch makes the object larger than %d bytes", maxBody)
		}
	}
	return before, nil
}

// cannotBeDone is the error of a patch that is well formed and does not fit the
// object, such as one whose test fails.
func cannotBeDone(err error) error {
	if err == nil {
		return nil
	}
	return statusError(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err.Error())
}

// applied merges what an apply says into the object. As nobody but Git owns a
// field here, there are no conflicts, and nothing is taken away.
func (q *request) applied(before, patch []byte) ([]byte, error) {
	text, err := yaml.YAMLToJSON(patch)
	if err != nil {
		return nil, err
	}
	return strategicpatch.StrategicMergePatch(before, text, q.res.empty())
}
