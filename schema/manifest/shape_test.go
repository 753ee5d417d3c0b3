package manifest

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// The shape and CUE's own evaluator give the same verdict on every document of
// the collection and on thousands of spoiled ones.
func TestShapeAgreesWithCUE(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	judge := &cueJudge{}
	compared, refused := 0, 0
	for i, tr := range corpusTruths(t) {
		if tr.root == nil || !judged(tr.kind) || i%4 != 0 { // CUE takes milliseconds for each
			continue
		}
		documents := []*node{tr.root}
		for range 2 {
			documents = append(documents, spoil(random, tr.root))
		}
		for _, root := range documents {
			o := &objectReader{file: tr.file, root: root}
			if !o.identify() {
				continue
			}
			o.root = o.convert(o.root)
			o.check()
			shapeSays := ""
			for _, f := range o.faults.faults {
				if f.Problem != "is not supported by Pawl" && f.Problem != "is empty" {
					shapeSays = f.String()
					break
				}
			}
			if hasNullItem(o.root) {
				continue
			}
			cueSays := judge.verdict(t, o.info.GVK.Kind, o.root)
			if (shapeSays == "") != (cueSays == nil) {
				t.Errorf("%s #%s: the shape says %q, CUE says %v\n%s", tr.file, tr.index, shapeSays, cueSays, o.root.appendJSON(nil))
			}
			compared++
			if cueSays != nil {
				refused++
			}
		}
	}
	t.Logf("%d documents compared, %d of them refused by both", compared, refused)
}

// A cueJudge evaluates documents against the definitions, with a new context
// now and then, because a context keeps all it ever saw.
type cueJudge struct {
	uses        int
	ctx         *cue.Context
	definitions cue.Value
}

func (j *cueJudge) verdict(t testing.TB, kind string, root *node) error {
	t.Helper()
	if j.uses%300 == 0 {
		j.ctx = cuecontext.New()
		j.definitions = definitionsIn(j.ctx)
		if err := j.definitions.Err(); err != nil {
			t.Fatal(err)
		}
	}
	j.uses++
	definition := j.definitions.LookupPath(cue.MakePath(cue.Def(kind)))
	if !definition.Exists() {
		t.Fatalf("no definition #%s", kind)
	}
	object := j.ctx.CompileBytes(withoutNulls(root, false).appendJSON(nil))
	if err := object.Err(); err != nil {
		t.Fatal(err)
	}
	return definition.Unify(object).Validate(cue.Concrete(true))
}

// withoutNulls is the document as Kubernetes reads it: a field that is null is
// not there, but in a map with free keys it is an empty text.
func withoutNulls(n *node, free bool) *node {
	c := *n
	c.fields, c.items = nil, nil
	for _, f := range n.fields {
		if f.value.kind == nullNode {
			if !free {
				continue
			}
			f.value = &node{kind: stringNode}
		} else {
			f.value = withoutNulls(f.value, freeKeys("."+f.key))
		}
		c.fields = append(c.fields, f)
	}
	for _, i := range n.items {
		c.items = append(c.items, withoutNulls(i, false))
	}
	return &c
}

func hasNullItem(n *node) bool {
	for _, i := range n.items {
		if i.kind == nullNode || hasNullItem(i) {
			return true
		}
	}
	for _, f := range n.fields {
		if hasNullItem(f.value) {
			return true
		}
	}
	return false
}

// spoil changes one place of a document: another type, name or value.
func spoil(random *rand.Rand, root *node) *node {
	var places int
	countPlaces(root, &places)
	at := random.IntN(places)
	return spoilAt(random, root, &at)
}

func countPlaces(n *node, count *int) {
	*count++
	for _, f := range n.fields {
		countPlaces(f.value, count)
	}
	for _, i := range n.items {
		countPlaces(i, count)
	}
}

func spoilAt(random *rand.Rand, n *node, at *int) *node {
	*at--
	if *at == -1 {
		return spoiled(random, n)
	}
	c := *n
	c.fields = append([]field(nil), n.fields...)
	c.items = append([]*node(nil), n.items...)
	for i := range c.fields {
		c.fields[i].value = spoilAt(random, c.fields[i].value, at)
	}
	for i := range c.items {
		c.items[i] = spoilAt(random, c.items[i], at)
	}
	return &c
}

func spoiled(random *rand.Rand, n *node) *node {
	c := *n
	switch {
	case n.kind == mapNode && len(n.fields) > 0 && random.IntN(3) > 0:
		c.fields = append([]field(nil), n.fields...)
		i := random.IntN(len(c.fields))
		switch random.IntN(3) {
		case 0:
			if c.fields[i].value.kind != nullNode {
				c.fields[i].key += "x"
			}
		case 1:
			c.fields = append(c.fields[:i], c.fields[i+1:]...)
		default:
			c.fields = append(c.fields, field{key: []string{"emptyDir", "exec", "name", "a b", "port"}[random.IntN(5)] + "", value: &node{kind: mapNode}})
			if n.field(c.fields[len(c.fields)-1].key) != nil {
				c.fields = c.fields[:len(c.fields)-1]
			}
		}
		return &c
	case n.kind == listNode && len(n.items) > 0 && random.IntN(2) > 0:
		c.items = nil
		return &c
	}
	others := []*node{
		{kind: stringNode, text: "Foo_Bar!"}, {kind: stringNode}, {kind: stringNode, text: "80"}, {kind: intNode, text: "-1"}, {kind: intNode, text: "70000"},
		{kind: intNode, text: "99999999999"}, {kind: floatNode, text: "1.5"}, {kind: boolNode, text: "true"}, {kind: mapNode}, {kind: listNode},
		{kind: listNode, items: []*node{{kind: intNode, text: "1"}}}, {kind: stringNode, text: strings.Repeat("a", 300)}, {kind: stringNode, text: "Always"}, {kind: stringNode, text: "../x"},
	}
	return others[random.IntN(len(others))]
}

// Every field of the Go types stands in the definitions, and every field of the
// definitions in the Go types: nothing that Kubernetes knows is dropped unseen.
func TestDefinitionsCoverTheTypes(t *testing.T) {
	for _, info := range schema.Kinds() {
		if !info.Manifest {
			continue
		}
		named := shapes()[info.GVK.Kind]
		if named == nil {
			t.Errorf("no definition of %s", info.GVK.Kind)
			continue
		}
		covers(t, info.GVK.Kind, reflect.TypeOf(info.New()).Elem(), named)
	}
}

// oldFields stand in old API versions only.
var oldFields = map[string]bool{"Deployment.spec.rollbackTo": true}

func covers(t *testing.T, path string, typ reflect.Type, s shape) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch s := base(s).(type) {
	case *listShape:
		if typ.Kind() == reflect.Slice && s.rest != nil {
			covers(t, path+"[]", typ.Elem(), s.rest)
		}
	case *structShape:
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[metav1.Time]() {
			return
		}
		fields := map[string]reflect.Type{}
		jsonFields(typ, fields)
		for _, name := range sortedKeys(fields) {
			if s.byName[name] == nil {
				t.Errorf("%s.%s is a field of %s and not in the definitions", path, name, typ)
			}
		}
		for _, f := range s.fields {
			inner, there := fields[f.name]
			if !there {
				if !oldFields[path+"."+f.name] {
					t.Errorf("%s.%s is in the definitions and no field of %s", path, f.name, typ)
				}
				continue
			}
			covers(t, path+"."+f.name, inner, f.shape)
		}
	}
}

func jsonFields(typ reflect.Type, out map[string]reflect.Type) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name == "" && f.Anonymous:
			jsonFields(f.Type, out)
		case name != "":
			out[name] = f.Type
		}
	}
}

// A definition that the shape does not understand in full is not loaded.
func TestShapeRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for name, text := range map[string]string{
		"reference to a field": "#A: {a?: string, b?: a}",
		"comprehension":        "#A: {if true {a?: 1}}",
		"interpolation":        `#A: {a?: "x\(1)"}`,
		"regular field":        "#A: {a: string}",
		"let":                  "#A: {let x = 1, a?: x}",
		"unknown call":         "import \"list\"\n#A: list.MaxItems(1)",
		"missing definition":   "#A: {a?: #B}",
		"top-level field":      "a: 1",
		"unknown attribute":    `#A: {a?: 1 @pawl(perhaps, "x")}`,
		"ordered text":         `#A: >"a"`,
		"bad pattern":          `#A: =~"("`,
	} {
		if _, err := loadShapes(fstest.MapFS{"a.cue": {Data: []byte("package schema\n" + text + "\n")}}); err == nil {
			t.Errorf("%s is loaded", name)
		}
	}
}
