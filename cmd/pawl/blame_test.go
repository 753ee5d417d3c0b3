package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

func TestPrintBlame(t *testing.T) {
	day := time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC)
	first := schema.BlameCommit{Commit: strings.Repeat("a", 40), Author: "Ada Lovelace", When: day, Subject: "begin", File: "web.yaml", Line: 1}
	second := schema.BlameCommit{Commit: strings.Repeat("b", 40), Author: "Bob\x1b[31m", When: day.Add(time.Hour), Subject: "more", File: "old.yaml", Line: 7}
	b := schema.Blame{
		Asked: "pods/default/web-x", Object: "deployments/default/web", Source: "web.yaml:2",
		Owners:  []string{"replicasets/default/web-1", "deployments/default/web"},
		Changed: second, Created: &first, Note: "Only so far.",
		Fields: []schema.BlameField{
			{Path: "spec.replicas", Source: "web.yaml:9", BlameCommit: second, Old: ptr.To("2"), New: ptr.To("3")},
			{Path: "spec.paused", Source: "web.yaml:10", BlameCommit: second, New: ptr.To("true")},
			{Path: "metadata.labels.a", BlameCommit: second, Old: ptr.To("x")},
			{Path: "data.a", Source: "web.yaml:11", BlameCommit: second, Old: ptr.To("(secret)"), New: ptr.To("(secret)")},
		},
	}
	run := func(b schema.Blame, output string) (string, string) {
		t.Helper()
		s, _, out, errs := genericiooptions.NewTestIOStreams()
		if err := printBlame(s, b, output, time.UTC); err != nil {
			t.Fatal(err)
		}
		return out.String(), errs.String()
	}
	out, errs := run(b, "")
	want := `aaaaaaaaaa  Ada Lovelace  2026-11-20 09:30  web.yaml:2   deployments/default/web  created
bbbbbbbbbb  Bob?[31m      2026-11-20 10:30  web.yaml:9   spec.replicas            2 → 3
bbbbbbbbbb  Bob?[31m      2026-11-20 10:30  web.yaml:10  spec.paused              + true
bbbbbbbbbb  Bob?[31m      2026-11-20 10:30  old.yaml     metadata.labels.a        - x
bbbbbbbbbb  Bob?[31m      2026-11-20 10:30  web.yaml:11  data.a                   (secret)
`
	if out != want {
		t.Errorf("%s", out)
	}
	if errs != "pods/default/web-x was made for replicasets/default/web-1, for deployments/default/web, which stands in Git.\nOnly so far.\n" {
		t.Errorf("%s", errs)
	}
	if out, _ := run(b, "wide"); !strings.Contains(out, "2 → 3     old.yaml:7  more\n") {
		t.Errorf("%s", out)
	}
	if out, _ := run(b, "json"); !strings.Contains(out, `"object": "deployments/default/web"`) {
		t.Errorf("%s", out)
	}
	b.Created, b.Fields = nil, nil
	if out, _ := run(b, ""); !strings.HasSuffix(out, "web.yaml:2  deployments/default/web  changed\n") {
		t.Errorf("%s", out)
	}
	s := genericiooptions.IOStreams{Out: &bytes.Buffer{}, ErrOut: &bytes.Buffer{}}
	if err := printBlame(s, b, "xml", time.UTC); err == nil {
		t.Error("xml was printed")
	}
}
