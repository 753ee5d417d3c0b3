package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/pawl-project/pawl/schema/manifest"
)

func TestMain(m *testing.M) {
	manifest.ChildMain()
	if line := os.Getenv("PAWL_TEST_LINE"); line != "" { // as a process of its own, see desk.process
		os.Exit(run(strings.Fields(line), genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}, os.Getenv))
	}
	os.Exit(m.Run())
}

// runValidate runs the command as main does.
func runValidate(t *testing.T, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	streams := genericiooptions.IOStreams{In: strings.NewReader(stdin), Out: &out, ErrOut: &errs}
	root := newRoot(newCluster(func(string) string { return "" }), streams)
	root.SetArgs(append([]string{"validate"}, args...))
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

const goodManifests = `apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: team}
spec:
  enableServiceLinks: false
  containers: [{name: a, image: "busybox:1"}]
`

func TestValidateAcceptsATree(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"a.yaml": goodManifests, "b.cue": "apiVersion: \"v1\"\nkind: \"ConfigMap\"\nmetadata: name: \"c\"\n", "README.md": "no manifest"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, err := runValidate(t, "", root)
	if err != nil || stdout != "3 objects in 2 files are valid\n" {
		t.Errorf("got %q, %v", stdout, err)
	}
	if stderr != "warning: a.yaml:9:3: Pod team/p: spec.enableServiceLinks: has no effect: pods get no environment from Services yet\n" {
		t.Errorf("warnings are %q", stderr)
	}
}

func TestValidateRefuses(t *testing.T) {
	stdout, stderr, err := runValidate(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndta: {}\n", "-")
	if !errors.Is(err, errSilent) || stdout != "" {
		t.Errorf("got %q, %v", stdout, err)
	}
	if stderr != "stdin.yaml:4:1: ConfigMap default/c: dta: unknown field; did you mean data?\n1 fault, refused\n" {
		t.Errorf("faults are %q", stderr)
	}
}

func TestValidateJSON(t *testing.T) {
	stdout, _, err := runValidate(t, `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}`, "-", "-o", "json")
	if !errors.Is(err, errSilent) {
		t.Errorf("got %v", err)
	}
	var v verdict
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatal(err)
	}
	if v.Valid || len(v.Faults) != 1 || v.Faults[0].Field != "metadata.name" || v.Faults[0].Line != 1 {
		t.Errorf("got %+v", v)
	}
}

func TestValidateCannotRead(t *testing.T) {
	for _, args := range [][]string{{filepath.Join(t.TempDir(), "absent")}, {"-o", "yaml", "."}, {"a", "b"}} {
		if _, _, err := runValidate(t, "", args...); err == nil || errors.Is(err, errSilent) {
			t.Errorf("%v: got %v, want an error that main prints", args, err)
		}
	}
}
