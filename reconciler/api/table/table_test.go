package table_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/api/table"
	"github.com/pawl-project/pawl/schema"
)

// A recording is what the API server of Kubernetes answered when it was asked
// for a table of objects; testdata/README.md says how it was made. Its times
// are moved, so that recorded is when the answer was given.
type recording struct {
	Recorded          time.Time                      `json:"recorded"`
	ColumnDefinitions []metav1.TableColumnDefinition `json:"columnDefinitions"`
	Rows              []struct {
		Cells      []any                      `json:"cells"`
		Conditions []metav1.TableRowCondition `json:"conditions"`
		Object     json.RawMessage            `json:"object"`
	} `json:"rows"`
}

func TestEveryKindIsPrintedAsByKubernetes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		kind, _ := strings.CutSuffix(filepath.Base(file), ".json")
		t.Run(kind, func(t *testing.T) {
			compare(t, schema.Kind(kind), read(t, file))
		})
	}
}

func compare(t *testing.T, kind schema.Kind, want recording) {
	columns := table.For(kind)
	headers := columns.Definitions()
	sameHeaders(t, headers, want.ColumnDefinitions)
	for _, row := range want.Rows {
		o := empty(t, kind)
		if err := json.Unmarshal(row.Object, o); err != nil {
			t.Fatal(err)
		}
		cells := throughJSON[[]any](t, columns.Row(o, want.Recorded))
		if len(cells) != len(row.Cells) {
			t.Fatalf("%s: %d cells, want %d", o.GetName(), len(cells), len(row.Cells))
		}
		for i := range cells {
			if cells[i] != row.Cells[i] {
				t.Errorf("%s: %s is %#v, want %#v", o.GetName(), headers[i].Name, cells[i], row.Cells[i])
			}
		}
		if got, want := asJSON(t, columns.Conditions(o)), asJSON(t, row.Conditions); got != want {
			t.Errorf("%s: conditions %s, want %s", o.GetName(), got, want)
		}
	}
}

func empty(t *testing.T, kind schema.Kind) schema.Object {
	info, ok := schema.LookupKind(kind)
	if !ok {
		t.Fatalf("Pawl does not know the kind %s", kind)
	}
	return info.New()
}

func sameHeaders(t *testing.T, got, want []metav1.TableColumnDefinition) {
	if len(got) != len(want) {
		t.Fatalf("%d columns, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("column %d is\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
}

func TestAKindWithoutColumnsHasNameAndAge(t *testing.T) {
	columns := table.For("widgets")
	if got := len(columns.Definitions()); got != 2 {
		t.Errorf("%d columns", got)
	}
	born := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	info, _ := schema.LookupKind(schema.ConfigMaps)
	o := info.New()
	o.SetName("a")
	o.SetCreationTimestamp(metav1.NewTime(born))
	if got := asJSON(t, columns.Row(o, born.Add(90*time.Minute))); got != `["a","90m"]` {
		t.Error(got)
	}
}

func TestRevisions(t *testing.T) {
	seen := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	settled := seen.Add(2345678 * time.Microsecond)
	for _, c := range []struct {
		name   string
		record schema.RevisionRecord
		want   string
	}{
		{"settled", schema.RevisionRecord{
			Subject: "Two more", Result: schema.RevisionApplied, Settled: &settled, Created: []string{"a", "b"}, Removed: []string{"c"},
		}, `["0123456789","Ada","3h5m","Applied","+2 ~0 -1","2.346s","Two more","\u003cnone\u003e","0123456789abcdef"]`},
		{"not settled", schema.RevisionRecord{
			Subject: "Faster", Result: schema.RevisionApplied, Changed: []string{"a"},
		}, `["0123456789","Ada","3h5m","Applied","+0 ~1 -0","not yet","Faster","\u003cnone\u003e","0123456789abcdef"]`},
		{"refused", schema.RevisionRecord{
			Subject: "Oops", Result: schema.RevisionRefused,
			Faults: []schema.Fault{{File: "web.yaml", Line: 3, Column: 5, Problem: "no"}, {File: "db.yaml", Problem: "neither"}},
		}, `["0123456789","Ada","3h5m","Refused","2 faults","-","Oops","web.yaml:3:5: no; db.yaml: neither","0123456789abcdef"]`},
		{"refused for one reason", schema.RevisionRecord{
			Subject: "Oops", Result: schema.RevisionRefused, Faults: []schema.Fault{{File: "web.yaml", Problem: "no"}},
		}, `["0123456789","Ada","3h5m","Refused","1 fault","-","Oops","web.yaml: no","0123456789abcdef"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.record.Commit, c.record.Author, c.record.Seen = "0123456789abcdef", "Ada", seen
			o := schema.NewRevisionObject(&c.record)
			columns := table.For(schema.Revisions)
			row := columns.Row(o, seen.Add(3*time.Hour+5*time.Minute))
			if got := asJSON(t, row); got != c.want {
				t.Errorf("\n%s, want\n%s", got, c.want)
			}
			if len(row) != len(columns.Definitions()) {
				t.Errorf("%d cells for %d columns", len(row), len(columns.Definitions()))
			}
		})
	}
}

func TestEveryKindHasColumnsOfItsOwn(t *testing.T) {
	for _, info := range schema.Kinds() {
		if len(table.For(info.Kind).Definitions()) == 2 {
			t.Errorf("%s has name and age only", info.Kind)
		}
	}
}

func TestDefinitionsAreTheCallers(t *testing.T) {
	columns := table.For(schema.Pods)
	columns.Definitions()[0].Name = "Mine"
	if got := columns.Definitions()[0].Name; got != "Name" {
		t.Errorf("a caller has renamed the first column to %s", got)
	}
}

func read(t testing.TB, file string) (r recording) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return r
}

// throughJSON gives values the types they have for a client.
func throughJSON[T any](t *testing.T, v any) (out T) {
	if err := json.Unmarshal([]byte(asJSON(t, v)), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func asJSON(t *testing.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
