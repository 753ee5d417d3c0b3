package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pawl-project/pawl/examples/images/build"
	"github.com/pawl-project/pawl/schema/manifest"
)

// What every test uses, made once by TestMain.
var (
	pawldBin, pawlBin string // the binaries under test
	mirror            string // URL of the registry that stands in for docker.io
)

func TestMain(m *testing.M) {
	manifest.ChildMain()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: "+err.Error())
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if os.Geteuid() != 0 {
		return 1, fmt.Errorf("these tests run real containers and need root: sudo make test")
	}
	for _, tool := range []string{"containerd", "runc", "git", "kubectl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return 1, fmt.Errorf("%w: make deps installs it", err)
		}
	}
	dir, err := os.MkdirTemp("", "pawl-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	pawldBin, pawlBin = filepath.Join(dir, "pawld"), filepath.Join(dir, "pawl")
	for bin, pkg := range map[string]string{pawldBin: "../pawld", pawlBin: "../pawl"} {
		compile := exec.Command("go", "build", "-o", bin, pkg)
		compile.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := compile.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	url, stop, err := build.Serve(context.Background(), "busybox:1", "nginx:1.7.9", "nginx:1.16.1")
	if err != nil {
		return 1, err
	}
	defer stop()
	mirror = url
	code := m.Run()
	printRows(os.Stdout)
	return code, nil
}
