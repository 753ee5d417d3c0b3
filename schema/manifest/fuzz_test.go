package manifest

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Whatever the text is, compiling it ends, without a panic, and what it accepts
// is what it accepts again when the object's own JSON is pushed.
func FuzzCompileText(f *testing.F) {
	scenarios, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range scenarios {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		_, sections := parseScenario(string(raw))
		for _, s := range sections {
			f.Add([]byte(s.text), filepath.Ext(s.name) == ".json")
		}
	}
	f.Add([]byte("a: &a [*a]"), false)
	f.Add([]byte("<<: {<<: [{a: b}]}"), false)
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"List","items":null}]}`), true)
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		name := "fuzz.yaml"
		if isJSON {
			name = "fuzz.json"
		}
		r := compileText(name, text)
		for _, fault := range r.faults {
			if fault.Problem == "" || fault.Line < 0 || bytes.ContainsAny([]byte(fault.String()), "\n\r") {
				t.Fatalf("a fault that cannot be read: %q", fault.String())
			}
		}
		if len(r.faults) > 0 {
			return
		}
		for _, o := range r.objects {
			raw, err := json.Marshal(o.object)
			if err != nil {
				t.Fatal(err)
			}
			again := compileText("again.json", raw)
			if len(again.faults) > 0 || len(again.objects) != 1 {
				t.Fatalf("accepted, and its own JSON is not: %v\n%s", again.faults, raw)
			}
			a, b := o.object.DeepCopyObject(), again.objects[0].object.DeepCopyObject()
			x, _ := json.Marshal(withoutSource(a))
			y, _ := json.Marshal(withoutSource(b))
			if !bytes.Equal(x, y) {
				t.Fatalf("defaulting twice changes the object:\n%s\n%s", x, y)
			}
		}
	})
}
