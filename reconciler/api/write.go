package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

// write answers create, update and patch: with the file to edit or, for a dry
// run, with the object as a push would make it.
func (q *request) write() {
	f, err := negotiate(q.r, offer{q.res.media(), oneShapes})
	if err != nil {
		q.fail(err)
		return
	}
	dry, err := q.dryRun()
	if err != nil {
		q.fail(err)
		return
	}
	if !dry || !q.res.manifest || q.Validate == nil {
		q.fail(q.refuseWrite())
		return
	}
	w, err := q.wanted()
	if err != nil {
		q.fail(err)
		return
	}
	o, err := q.validated(w)
	if err != nil {
		q.fail(err)
		return
	}
	code := http.StatusOK
	if w.was == nil {
		code = http.StatusCreated
	}
	q.answerObject(code, f, o)
}

// refuseWrite is the answer to a write that is meant.
func (q *request) refuseWrite() error {
	if q.verb != "create" {
		if _, err := q.current(); err != nil {
			return err
		}
		return q.refusal()
	}
	text, err := q.body()
	if err != nil {
		return err
	}
	o, err := q.decoded(text)
	if err != nil {
		return err
	}
	return q.refuse(o.GetName())
}

// dryRun says whether the caller only asks what would be.
func (q *request) dryRun() (bool, error) {
	dry := q.r.URL.Query()["dryRun"]
	if len(dry) == 0 {
		return false, nil
	}
	faults := validation.ValidateCreateOptions(&metav1.CreateOptions{DryRun: dry})
	if len(faults) > 0 {
		kind := map[string]string{"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}[q.verb]
		return false, apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind(kind).GroupKind(), "", faults)
	}
	return true, nil
}

// A wanted object is what a write asks for.
type wanted struct {
	object *unstructured.Unstructured
	was    schema.Object // nil: it would be new
}

// wanted reads the body and works out which object it asks for.
func (q *request) wanted() (wanted, error) {
	text, err := q.body()
	if err != nil {
		return wanted{}, err
	}
	var w wanted
	if q.verb != "create" {
		if w.was, err = q.current(); err != nil {
			return w, err
		}
	}
	switch q.verb {
	case "patch":
		w.object, err = q.patched(w.was, text)
	default:
		w.object, err = q.decoded(text)
	}
	if err != nil {
		return w, err
	}
	return w, q.fits(&w)
}

// current is the object that the request names; nil for one that an apply may
// make.
func (q *request) current() (schema.Object, error) {
	item, ok := q.Cache.Get(q.key())
	if ok {
		return q.res.object(item)
	}
	if q.verb == "patch" && bodyMedia(q.r) == applyPatch {
		return nil, nil
	}
	return nil, apierrors.NewNotFound(q.t.groupResource(), q.t.name)
}

// decoded is a whole object in whichever media it comes.
func (q *request) decoded(text []byte) (*unstructured.Unstructured, error) {
	switch bodyMedia(q.r) {
	case string(protoMedia):
		o, _, err := codecs.UniversalDeserializer().Decode(text, &q.res.gvk, nil)
		if err == nil {
			text, err = json.Marshal(o)
		}
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	case string(jsonMedia), string(yamlMedia):
	default:
		return nil, notUnderstood(q.res.media())
	}
	return q.fromYAML(text)
}

// fromYAML reads an object in YAML or JSON.
func (q *request) fromYAML(text []byte) (*unstructured.Unstructured, error) {
	var fields map[string]any
	if err := yaml.Unmarshal(text, &fields); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding: %v", err))
	}
	if fields == nil {
		return nil, apierrors.NewBadRequest("the body of the request holds no object")
	}
	return &unstructured.Unstructured{Object: fields}, nil
}

// fits checks that an object is the one the request is for, and fills in what
// the request says instead of the object.
func (q *request) fits(w *wanted) error {
	o := w.object
	if kind := o.GroupVersionKind(); kind.Kind == "" {
		o.SetGroupVersionKind(q.res.gvk)
	} else if kind != q.res.gvk {
		return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s), or the kind (%s) does not match (%s)",
			kind.GroupVersion(), q.res.apiVersion(), kind.Kind, q.res.gvk.Kind))
	}
	if q.res.namespaced {
		if o.GetNamespace() == "" {
			o.SetNamespace(q.t.namespace)
		}
		if o.GetNamespace() != q.t.namespace {
			return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
	}
	if o.GetName() == "" && q.t.name != "" && q.verb == "patch" {
		o.SetName(q.t.name)
	}
	if q.verb == "create" {
		return q.fitsNew(o)
	}
	if o.GetName() != q.t.name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", o.GetName(), q.t.name))
	}
	if v := o.GetResourceVersion(); w.was != nil && v != "" && v != w.was.GetResourceVersion() {
		return apierrors.NewConflict(q.res.groupResource(), q.t.name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	return nil
}

func (q *request) fitsNew(o *unstructured.Unstructured) error {
	if o.GetName() == "" && o.GetGenerateName() != "" {
		o.SetName(o.GetGenerateName() + rand.String(5))
	}
	dry := q.r.URL.Query().Has("dryRun")
	if _, there := q.Cache.Get(objectKey(q.res.kind, q.t.namespace, o.GetName())); there && dry {
		return apierrors.NewAlreadyExists(q.res.groupResource(), o.GetName())
	}
	return nil
}

// validated is the object as a push would make it, with what only the cluster
// says of it.
func (q *request) validated(w wanted) (schema.Object, error) {
	manifest := w.object.DeepCopy()
	onlyWishes(manifest)
	node := nodeOf(w.was)
	if at, _, _ := unstructured.NestedString(manifest.Object, "spec", "nodeName"); node != "" && at == node { //nolint:errcheck // what is no text is refused below
		unstructured.RemoveNestedField(manifest.Object, "spec", "nodeName")
	}
	text, err := json.Marshal(manifest.Object)
	if err != nil {
		return nil, err
	}
	o, warnings, err := q.Validate(q.r.Context(), text)
	if err != nil {
		return nil, q.invalid(w.object.GetName(), err)
	}
	for _, f := range warnings {
		warn(q.w, withoutPlace(f).String())
	}
	o = copyOf(o)
	o.GetObjectKind().SetGroupVersionKind(q.res.gvk)
	q.known(o, w.was)
	return o, nil
}

// nodeOf is where a pod was placed, which no manifest says; "" for anything else.
func nodeOf(o schema.Object) string {
	if p, ok := o.(*corev1.Pod); ok {
		return p.Spec.NodeName
	}
	return ""
}

// onlyWishes takes from an object what no manifest says.
func onlyWishes(o *unstructured.Unstructured) {
	delete(o.Object, "status")
	for _, field := range []string{
		"uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields",
		"deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "generateName",
	} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	if a := o.GetAnnotations(); a != nil {
		maps.DeleteFunc(a, func(k, _ string) bool { return ours(k) })
		if len(a) == 0 {
			a = nil
		}
		o.SetAnnotations(a)
	}
}

// ours says whether an annotation is Pawl's own.
func ours(annotation string) bool { return strings.HasPrefix(annotation, "pawl.dev/") }

// known puts onto an object what the cluster knows of it: who it is and how it
// does.
func (q *request) known(o, was schema.Object) {
	annotations := maps.Clone(o.GetAnnotations())
	maps.DeleteFunc(annotations, func(k, _ string) bool { return ours(k) })
	if was == nil {
		o.SetUID(uuid.NewUUID())
		o.SetCreationTimestamp(metav1.NewTime(q.Now().UTC()))
		o.SetResourceVersion("")
	} else {
		o.SetUID(was.GetUID())
		o.SetCreationTimestamp(was.GetCreationTimestamp())
		o.SetResourceVersion(was.GetResourceVersion())
		o.SetGeneration(was.GetGeneration())
		o.SetOwnerReferences(was.GetOwnerReferences())
		copyStatus(o, was)
		if p, ok := o.(*corev1.Pod); ok {
			p.Spec.NodeName = nodeOf(was)
		}
		for k, v := range was.GetAnnotations() {
			if !ours(k) {
				continue
			}
			if annotations == nil {
				annotations = map[string]string{}
			}
			annotations[k] = v
		}
	}
	if len(annotations) == 0 {
		annotations = nil
	}
	o.SetAnnotations(annotations)
}

// invalid is a refusal in Kubernetes' words.
func (q *request) invalid(name string, err error) error {
	refusal := new(schema.Refusal)
	if !errors.As(err, &refusal) {
		return err
	}
	var causes []metav1.StatusCause
	var lines []string
	for _, f := range refusal.Faults {
		f = withoutPlace(f)
		lines = append(lines, f.String())
		message := f.Problem
		if f.Remedy != "" {
			message += "; " + f.Remedy
		}
		causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: f.Field, Message: message})
	}
	text := strings.Join(slices.Compact(lines), ", ")
	if len(lines) > 1 {
		text = "[" + text + "]"
	}
	kind := q.res.gvk.GroupKind()
	status := statusError(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, fmt.Sprintf("%s %q is invalid: %s", kind, name, text))
	status.ErrStatus.Details = &metav1.StatusDetails{Group: kind.Group, Kind: kind.Kind, Name: name, Causes: causes}
	return status
}

// withoutPlace is a fault of an object that stands in no file.
func withoutPlace(f schema.Fault) schema.Fault {
	f.File, f.Line, f.Column, f.Object = "", 0, 0, ""
	return f
}
