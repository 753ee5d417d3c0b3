package manifest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

var update = flag.Bool("update", false, "rewrite the answers in testdata; then read the diff")

func TestMain(m *testing.M) {
	ChildMain()
	hogMain()
	os.Exit(m.Run())
}

// A scenario file is a tree of manifests and what it gives. Sections begin with
// "-- name --"; a name that begins with "want " is an answer, the others are files.
//
//	want faults     the refusal, one fault a line
//	want warnings   of an accepted tree
//	want objects    the typed objects as YAML, when the file asks for them
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			intro, sections := parseScenario(string(raw))
			tree := map[string]string{}
			var answers []section
			for _, s := range sections {
				if strings.HasPrefix(s.name, "want ") {
					answers = append(answers, s)
				} else {
					tree[s.name] = s.text
				}
			}
			got := answer(t, tree, answers)
			if *update {
				var kept []section
				for _, s := range sections {
					if !strings.HasPrefix(s.name, "want ") {
						kept = append(kept, s)
					}
				}
				if err := os.WriteFile(file, []byte(formatScenario(intro, append(kept, got...))), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if g, w := formatScenario("", got), formatScenario("", answers); g != w {
				t.Errorf("got:\n%s\nwant:\n%s", g, w)
			}
		})
	}
}

// answer compiles the tree twice, cold and cached, and wants the same.
func answer(t *testing.T, tree map[string]string, wanted []section) []section {
	t.Helper()
	compiler := NewCompiler(Options{})
	var out []section
	for range 2 {
		var round []section
		result, err := compiler.Compile(context.Background(), MemTree(tree))
		var refusal *schema.Refusal
		switch {
		case errors.As(err, &refusal):
			round = append(round, section{"want faults", refusal.Error() + "\n"})
		case err != nil:
			t.Fatal(err)
		default:
			round = append(round, section{"want warnings", lines(result.Warnings)})
			for _, w := range wanted {
				if w.name == "want objects" {
					round = append(round, section{"want objects", objectsYAML(t, result.Objects)})
				}
			}
		}
		if out != nil && formatScenario("", out) != formatScenario("", round) {
			t.Errorf("the cached answer differs:\n%s\nfrom the first:\n%s", formatScenario("", round), formatScenario("", out))
		}
		out = round
	}
	return out
}

func lines(faults []schema.Fault) string {
	var b strings.Builder
	for _, f := range faults {
		b.WriteString(f.String() + "\n")
	}
	return b.String()
}

func objectsYAML(t *testing.T, objects []schema.Object) string {
	t.Helper()
	var b strings.Builder
	for i, o := range objects {
		raw, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			b.WriteString("---\n")
		}
		b.Write(raw)
	}
	return b.String()
}

type section struct{ name, text string }

func parseScenario(raw string) (intro string, sections []section) {
	for line := range strings.Lines(raw) {
		if name, ok := strings.CutPrefix(line, "-- "); ok {
			if name, ok := strings.CutSuffix(strings.TrimSpace(name), " --"); ok {
				sections = append(sections, section{name: name})
				continue
			}
		}
		if len(sections) == 0 {
			intro += line
			continue
		}
		sections[len(sections)-1].text += line
	}
	return intro, sections
}

func formatScenario(intro string, sections []section) string {
	b := strings.Builder{}
	b.WriteString(intro)
	for _, s := range sections {
		fmt.Fprintf(&b, "-- %s --\n%s", s.name, s.text)
	}
	return b.String()
}
