package manifest

import (
	"context"

	"github.com/pawl-project/pawl/schema"
)

// ChildMain evaluates CUE when the process was started for that, and exits.
func ChildMain() {}

type childRunner struct{ argv []string }

func newChildRunner(argv []string) *childRunner { return &childRunner{argv} }

func (c *Compiler) evaluate(ctx context.Context, tree schema.Tree, instances [][]schema.TreeFile) ([]*fileResult, error) {
	var out []*fileResult
	for _, i := range instances {
		for _, f := range i {
			out = append(out, &fileResult{faults: []schema.Fault{{File: f.Path, Problem: "CUE manifests are not evaluated in this build"}}})
		}
	}
	return out, nil
}

func (c *Compiler) constrain(ctx context.Context, tree schema.Tree, constraints []schema.TreeFile, results []*fileResult) ([]*fileResult, error) {
	return results, nil
}
