package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// An objectReader takes one document from node to object and gathers what is
// wrong with it on the way.
type objectReader struct {
	file     string
	root     *node
	title    string // "Deployment default/web"
	info     schema.KindInfo
	object   schema.Object // nil when the document was refused
	faults   faultList
	warnings faultList
}

// fault adds a fault at a field of the object.
func (o *objectReader) fault(path, problem, remedy string) {
	o.faultAt(o.root.find(path), path, problem, remedy)
}

func (o *objectReader) faultAt(at position, path, problem, remedy string) {
	o.faults.add(o.make(at, path, problem, remedy))
}

// warn adds a warning at a field of the object.
func (o *objectReader) warn(at position, path, problem, remedy string) {
	o.warnings.add(o.make(at, path, problem, remedy))
}

func (o *objectReader) make(at position, path, problem, remedy string) schema.Fault {
	file := o.file
	if at.file != "" {
		file = at.file
	}
	return schema.Fault{File: file, Line: at.line, Column: at.column, Object: o.title, Field: path, Problem: problem, Remedy: remedy}
}

// compileObject reads one flattened document.
func compileObject(d document) *objectReader {
	o := &objectReader{file: d.file, root: d.root}
	if !o.identify() {
		return o
	}
	o.root = o.convert(o.root)
	clean, whole := o.check()
	if !whole {
		return o // what the rules would say of half an object is guesswork
	}
	object, err := o.decode(clean)
	if err != nil {
		problem := "cannot be decoded"
		if !maySeal(o.info.Kind) { // the error names values
			problem += ": " + err.Error()
		}
		o.fault("", problem, "")
		return o
	}
	setDefaults(object)
	o.rules(object)
	o.storedRule(object)
	if len(o.faults.faults) > 0 {
		return o
	}
	o.stamp(object)
	o.object = object
	return o
}

// storedRule refuses what would not fit into one message, in which a byte of text
// can take six: a commit would be accepted and never applied, a pod never reported.
func (o *objectReader) storedRule(object schema.Object) {
	limit := maxSpecBytes
	switch object.(type) {
	case *corev1.ConfigMap, *corev1.Secret:
		limit = maxStoredBytes
	}
	text, err := json.Marshal(object)
	if err != nil {
		o.fault("", "cannot be encoded: "+err.Error(), "")
	} else if len(text) > limit {
		o.fault("", fmt.Sprintf("takes %d bytes as JSON, the limit is %d", len(text), limit), "")
	}
}

// decode makes the typed object. The check came before, so that an error here
// is a disagreement between the definitions and the Go types.
func (o *objectReader) decode(root *node) (schema.Object, error) {
	object := o.info.New()
	decoder := json.NewDecoder(bytes.NewReader(root.appendJSON(nil)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(object); err != nil {
		return nil, err
	}
	object.GetObjectKind().SetGroupVersionKind(o.info.GVK)
	return object, nil
}

// stamp writes where the object stands.
func (o *objectReader) stamp(object schema.Object) {
	file := o.file
	if o.root.at.file != "" {
		file = o.root.at.file
	}
	annotations := make(map[string]string, len(object.GetAnnotations())+1)
	for k, v := range object.GetAnnotations() {
		annotations[k] = v
	}
	annotations[schema.AnnotationSource] = file + ":" + strconv.Itoa(o.root.at.line)
	object.SetAnnotations(annotations)
}

// describe is how faults name an object that may be only half there.
func describe(root *node, info schema.KindInfo) string {
	meta := root.get("metadata")
	name := meta.str("name")
	if name == "" {
		name = "(unnamed)"
	}
	if !info.Namespaced {
		return info.GVK.Kind + " " + short(name)
	}
	namespace := meta.str("namespace")
	if namespace == "" {
		namespace = defaultNamespace
	}
	return fmt.Sprintf("%s %s/%s", info.GVK.Kind, short(namespace), short(name))
}

// short bounds a word of the manifest and keeps it on one line.
func short(s string) string {
	return strings.Trim(quote(s), `"`)
}
