// Package examples holds the test that every example is one that Pawl accepts.
package examples

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pawl-project/pawl/examples/images/build"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/manifest"
)

func TestMain(m *testing.M) {
	manifest.ChildMain()
	os.Exit(m.Run())
}

// TestExamples compiles each folder as a repository of its own.
func TestExamples(t *testing.T) {
	want := map[string][]string{
		"config":        {"configmaps/default/settings", "pods/default/reader", "secrets/default/password"},
		"hello":         {"configmaps/default/greeting", "deployments/default/hello", "services/default/hello"},
		"nginx":         {"deployments/default/nginx-deployment"},
		"nginx-v1beta1": {"deployments/default/nginx-deployment"},
	}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	compiler := manifest.NewCompiler(manifest.Options{})
	for _, e := range entries {
		if !e.IsDir() || e.Name() == "images" {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			tree, err := manifest.DirTree(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			result, err := compiler.Compile(t.Context(), tree)
			var refusal *schema.Refusal
			if errors.As(err, &refusal) {
				t.Fatalf("refused:\n%v", refusal)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range result.Warnings {
				old := e.Name() == "nginx-v1beta1" && strings.Contains(w.String(), "apiVersion: apps/v1")
				if !old && !strings.Contains(w.String(), "Services are stored, and not routed yet") {
					t.Errorf("warning: %v", w)
				}
			}
			var got []string
			for _, o := range result.Objects {
				got = append(got, schema.KeyOf(o).String())
				checkImages(t, o)
			}
			sort.Strings(got)
			if fmt.Sprint(got) != fmt.Sprint(want[e.Name()]) {
				t.Errorf("objects %v, want %v", got, want[e.Name()])
			}
			delete(want, e.Name())
		})
	}
	for name := range want {
		t.Errorf("the example %s is missing", name)
	}
}

// checkImages holds that examples use only images that examples/images builds.
func checkImages(t *testing.T, o schema.Object) {
	t.Helper()
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	spec, _ := raw["spec"].(map[string]any)
	if template, ok := spec["template"].(map[string]any); ok {
		spec, _ = template["spec"].(map[string]any)
	}
	if spec["containers"] == nil {
		return
	}
	var pod corev1.PodSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(spec, &pod); err != nil {
		t.Fatal(err)
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		if !build.Known(c.Image) {
			t.Errorf("%s uses image %s, which examples/images does not build", schema.KeyOf(o), c.Image)
		}
	}
}

// TestEveryExampleIsListed keeps the table of README.md whole.
func TestEveryExampleIsListed(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob("*/")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if info, err := os.Stat(f); err == nil && info.IsDir() && !strings.Contains(string(text), "`"+filepath.Clean(f)+"`") {
			t.Errorf("README.md does not name %s", f)
		}
	}
}
