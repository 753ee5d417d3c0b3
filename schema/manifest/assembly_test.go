package manifest

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/pawl-project/pawl/schema"
)

// However trees follow each other, the remembered order is the one that a new
// assembly finds.
func TestAssemblyIsIncremental(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := make([]*fileResult, 12)
		for i := range pool {
			r := &fileResult{path: fmt.Sprint(i)}
			for j := range rapid.IntRange(0, 3).Draw(t, "objects") {
				name := fmt.Sprintf("n%d", rapid.IntRange(0, 15).Draw(t, "name"))
				text := compileText("a.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+"}\n"))
				o := text.objects[0]
				o.file, o.at.line = fmt.Sprint(i), j+1
				r.objects = append(r.objects, o)
			}
			pool[i] = r
		}
		var kept assembly
		for range 6 {
			var tree []*fileResult
			for _, r := range pool {
				if rapid.Bool().Draw(t, "in") {
					tree = append(tree, r)
				}
			}
			var fresh assembly
			want, wantErr := fresh.gather(tree, nil)
			got, gotErr := kept.gather(tree, nil)
			if (wantErr == nil) != (gotErr == nil) {
				t.Fatalf("got %v, want %v", gotErr, wantErr)
			}
			if wantErr != nil {
				var got, want *schema.Refusal
				if !errors.As(gotErr, &got) || !errors.As(wantErr, &want) || len(got.Faults) != len(want.Faults) {
					t.Fatalf("got %v, want %v", gotErr, wantErr)
				}
				continue
			}
			if len(got.Objects) != len(want.Objects) || got.Files != want.Files {
				t.Fatalf("got %d objects, want %d", len(got.Objects), len(want.Objects))
			}
			for i := range want.Objects {
				if schema.KeyOf(got.Objects[i]) != schema.KeyOf(want.Objects[i]) {
					t.Fatalf("object %d is %s, want %s", i, schema.KeyOf(got.Objects[i]), schema.KeyOf(want.Objects[i]))
				}
			}
		}
	})
}
