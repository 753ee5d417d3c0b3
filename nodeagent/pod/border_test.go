package pod

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// The core is pure: it imports only schema, the Kubernetes types and std that
// does nothing, and never asks a clock.
func TestBorders(t *testing.T) {
	allowed := map[string]bool{
		"fmt": true, "slices": true, "sort": true, "strings": true, "time": true,
		"k8s.io/api/core/v1": true, "k8s.io/apimachinery/pkg/api/resource": true,
		"k8s.io/apimachinery/pkg/apis/meta/v1": true, "k8s.io/apimachinery/pkg/types": true,
		"github.com/pawl-project/pawl/schema": true,
	}
	clocks := map[string]bool{"Now": true, "Since": true, "Until": true, "After": true, "AfterFunc": true, "NewTimer": true, "NewTicker": true, "Tick": true, "Sleep": true}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); !allowed[path] {
				t.Errorf("%s imports %s", e.Name(), path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine", e.Name())
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && (x.Name == "time" || x.Name == "metav1") && clocks[n.Sel.Name] {
					t.Errorf("%s asks a clock: %s.%s", e.Name(), x.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
}
