package plan

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/pawl-project/pawl/schema"
)

// Locked says whether an object is a ConfigMap or Secret that says of itself
// that its data does not change.
func Locked(o schema.Object) bool {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		return o.Immutable != nil && *o.Immutable
	case *corev1.Secret:
		return o.Immutable != nil && *o.Immutable
	}
	return false
}

// Unlocked lists what a new revision changes of objects whose data does not
// change (immutable: true), in order of the revision. standing gives an object as
// it stands; nil: there is none. An object that one revision removes the next
// may bring back with other data.
func Unlocked(objects []schema.Object, standing func(schema.ObjectKey) schema.Object, sameSecret func(stored, fresh *corev1.Secret) bool) []schema.Fault {
	var faults []schema.Fault
	for _, fresh := range objects {
		switch fresh.(type) {
		case *corev1.ConfigMap, *corev1.Secret:
		default:
			continue
		}
		old := standing(schema.KeyOf(fresh))
		if old == nil || !Locked(old) {
			continue
		}
		for _, field := range unlockedFields(old, fresh, sameSecret) {
			faults = append(faults, immutableFault(fresh, field))
		}
	}
	return faults
}

// unlockedFields names the fields that differ and must not.
func unlockedFields(old, fresh schema.Object, sameSecret func(stored, fresh *corev1.Secret) bool) (fields []string) {
	if !Locked(fresh) {
		fields = append(fields, "immutable")
	}
	switch fresh := fresh.(type) {
	case *corev1.ConfigMap:
		old, ok := old.(*corev1.ConfigMap)
		if ok && !equality.Semantic.DeepEqual(old.Data, fresh.Data) {
			fields = append(fields, "data")
		}
		if ok && !equality.Semantic.DeepEqual(old.BinaryData, fresh.BinaryData) {
			fields = append(fields, "binaryData")
		}
	case *corev1.Secret:
		if old, ok := old.(*corev1.Secret); ok && !sameSecret(old, fresh) {
			fields = append(fields, "data")
		}
	}
	return fields
}

func immutableFault(o schema.Object, field string) schema.Fault {
	f := schema.Fault{
		Object: o.GetObjectKind().GroupVersionKind().Kind + " " + o.GetNamespace() + "/" + o.GetName(), Field: field,
		Problem: "Forbidden: field is immutable when `immutable` is set",
		Remedy:  "give what is new another name, or remove this one in a commit before",
	}
	source := o.GetAnnotations()[schema.AnnotationSource]
	if colon := strings.LastIndexByte(source, ':'); colon >= 0 {
		if line, err := strconv.Atoi(source[colon+1:]); err == nil {
			f.File, f.Line = source[:colon], line
		}
	}
	return f
}
