package api

import (
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// A revision is found by the beginning of its commit's hash, as Git finds it.
func TestRevisionsByAbbreviation(t *testing.T) {
	d := newDoor(t)
	for _, commit := range []string{"aaaa1" + strings.Repeat("0", 35), "aaaa2" + strings.Repeat("0", 35), "bbbbb" + strings.Repeat("0", 35)} {
		d.put(schema.NewRevisionObject(&schema.RevisionRecord{Commit: commit, Result: schema.RevisionApplied}))
	}
	const base = "/apis/pawl.dev/v1/revisions/"
	for name, want := range map[string]string{
		"bbbbb" + strings.Repeat("0", 35): "bbbbb" + strings.Repeat("0", 35),
		"bbbb":                            "bbbbb" + strings.Repeat("0", 35),
		"aaaa1":                           "aaaa1" + strings.Repeat("0", 35),
	} {
		var r schema.RevisionObject
		if d.ask("GET", base+name, "").decode(t, &r); r.Name != want {
			t.Errorf("%s gives %q", name, r.Name)
		}
	}
	for name, want := range map[string]string{
		"aaaa": `400 BadRequest: revisions.pawl.dev "aaaa" is short for several, such as aaaa1`,
		"bbb":  `404 NotFound: revisions.pawl.dev "bbb" not found`,
		"cccc": `404 NotFound: revisions.pawl.dev "cccc" not found`,
	} {
		if got := d.ask("GET", base+name, "").status(t); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}
