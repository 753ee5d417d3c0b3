package manifest

import (
	"bytes"
	"path"
	"strings"
	"unicode/utf8"

	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pawl-project/pawl/schema"
)

// A LocatedObject is where an object and each of its fields stand in a file.
type LocatedObject struct {
	Line   int // where the object begins, from 1
	Fields []LocatedField
}

// A LocatedField is a value that has one author: a scalar, an empty map or list,
// or a list that Kubernetes takes as a whole (the words of a command, say).
// The items of a list that it merges are told apart by what it tells them apart
// by, so that another order is no change: spec.containers[name=web].image.
type LocatedField struct {
	Path         string
	Value        string // as JSON
	Line, Column int    // from 1
}

// Locate finds an object in the text of a YAML or JSON manifest, by the
// namespace and name that it has in the cluster. The fields come in the order of
// the text. It is false when the object is not there; faults elsewhere in the
// file do not matter, and what is written of the object is not judged.
func Locate(file string, content []byte, k schema.ObjectKey) (LocatedObject, bool) {
	if k.Kind == "" || len(content) > maxFileBytes || IsCUE(file) {
		return LocatedObject{}, false
	}
	if o, found := locateIn(naming(file, content, k.Name), k); found {
		return o, true
	}
	var faults faultList
	return locateIn(parse(file, content, &faults), k)
}

// naming reads the documents of a YAML file in whose text the name stands as it
// is: nearly always the one that is looked for, out of many.
func naming(file string, content []byte, name string) []document {
	if path.Ext(file) == ".json" || !utf8.Valid(content) {
		return nil
	}
	var documents []document
	for _, c := range splitYAML(bytes.TrimPrefix(content, []byte("\ufeff"))) {
		if !bytes.Contains(c.text, []byte(name)) {
			continue
		}
		var faults faultList
		if root, err := parseYAMLDocument(file, c, &faults); err == nil && root != nil {
			documents = append(documents, document{file: file, root: root})
		}
	}
	return documents
}

func locateIn(documents []document, k schema.ObjectKey) (LocatedObject, bool) {
	var faults faultList
	for _, d := range flatten(documents, &faults) {
		if d.root.kind == mapNode && keyOf(d.root) == k {
			l := locator{}
			l.fields("", d.root)
			return LocatedObject{Line: d.root.at.line, Fields: l.found}, true
		}
	}
	return LocatedObject{}, false
}

// Broken says whether a YAML or JSON manifest has a part that cannot be read, so
// that an object which Locate does not find may stand there all the same.
func Broken(file string, content []byte) bool {
	var faults faultList
	parse(file, content, &faults)
	return len(faults.faults) > 0
}

// IsManifest says whether a file is one that objects may stand in.
func IsManifest(file string) bool {
	switch path.Ext(file) {
	case ".yaml", ".yml", ".json", ".cue":
		return !hidden(file)
	}
	return false
}

// IsCUE says whether a file is CUE, whose objects cannot be located: they are
// made, not written.
func IsCUE(file string) bool { return path.Ext(file) == ".cue" }

// keyOf is the key of the object that a document holds; the zero key for none.
func keyOf(root *node) schema.ObjectKey {
	gvk := k8sschema.FromAPIVersionAndKind(root.str("apiVersion"), root.str("kind"))
	if to, old := oldVersions[gvk]; old {
		gvk = to
	}
	info, known := schema.LookupGVK(gvk)
	if !known {
		return schema.ObjectKey{}
	}
	meta := root.get("metadata")
	k := schema.ObjectKey{Kind: info.Kind, Name: meta.str("name")}
	if info.Namespaced {
		if k.Namespace = meta.str("namespace"); k.Namespace == "" {
			k.Namespace = defaultNamespace
		}
	}
	return k
}

// A locator walks an object and notes its fields.
type locator struct{ found []LocatedField }

func (l *locator) note(path string, at position, n *node) {
	l.found = append(l.found, LocatedField{Path: path, Value: string(n.appendJSON(nil)), Line: at.line, Column: at.column})
}

// fields notes the fields of a map. One that is null is not there.
func (l *locator) fields(path string, n *node) {
	for _, f := range n.fields {
		if f.value.kind != nullNode {
			l.value(fieldPath(path, f.key), f.key, f.at, f.value)
		}
	}
}

// value notes a value, which stands where its key does.
func (l *locator) value(path, key string, at position, n *node) {
	switch {
	case n.kind == mapNode && len(n.fields) > 0:
		l.fields(path, n)
	case n.kind == listNode && l.items(path, key, n):
	default:
		l.note(path, at, n)
	}
}

// mergeKeys are the fields by which Kubernetes tells the items of a list apart,
// by the list's name: the first one that every item has, and the second where
// two items have the same of the first.
var mergeKeys = map[string][]string{
	"containers": {"name"}, "initContainers": {"name"}, "ephemeralContainers": {"name"},
	"env": {"name"}, "volumes": {"name"}, "imagePullSecrets": {"name"}, "secrets": {"name"},
	"volumeMounts": {"mountPath"}, "volumeDevices": {"devicePath"},
	"ports":                     {"containerPort", "port", "protocol"},
	"hostAliases":               {"ip"},
	"topologySpreadConstraints": {"topologyKey", "whenUnsatisfiable"},
	"ownerReferences":           {"uid"},
}

// items notes the items of a list that is merged; false when it is taken as a
// whole, also because its items cannot be told apart.
func (l *locator) items(path, key string, n *node) bool {
	names, ok := itemNames(mergeKeys[key], n)
	if !ok {
		return false
	}
	for i, item := range n.items {
		l.fields(path+"["+names[i]+"]", item)
	}
	return true
}

// itemNames names each item of a list; false when two have one name.
func itemNames(keys []string, n *node) ([]string, bool) {
	if len(keys) == 0 || len(n.items) == 0 {
		return nil, false
	}
	names := make([]string, len(n.items))
	seen := map[string]int{}
	for i, item := range n.items {
		if names[i] = itemName(keys[:1], item); names[i] == "" {
			names[i] = itemName(keys, item)
		}
		seen[names[i]]++
	}
	for i, item := range n.items {
		if seen[names[i]] > 1 {
			names[i] = itemName(keys, item)
		}
	}
	seen = map[string]int{}
	for _, name := range names {
		if seen[name]++; name == "" || seen[name] > 1 {
			return nil, false
		}
	}
	return names, true
}

// itemName is what an item has of the keys: name=web, or port=53,protocol=UDP.
func itemName(keys []string, item *node) string {
	var parts []string
	for _, key := range keys {
		if v := item.get(key); v != nil && v.text != "" {
			parts = append(parts, key+"="+short(v.text))
		}
	}
	return strings.Join(parts, ",")
}
