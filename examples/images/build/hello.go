package build

import (
	"context"
	_ "embed"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

//go:embed hello/main.go
var helloSource []byte

// helloPort is where the server listens.
const helloPort = "8080"

func helloLayers(ctx context.Context, _ string) ([]packed, error) {
	text, err := cached(ctx, "hello", []string{string(helloSource), runtime.Version(), runtime.GOARCH}, func(ctx context.Context) ([]byte, error) {
		program, err := compile(ctx, helloSource)
		if err != nil {
			return nil, err
		}
		t := tree{}
		t.file("hello", 0o755, program)
		t.folder("tmp", 0o1777)
		t.text("etc/passwd", "root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n")
		t.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
		return t.pack()
	})
	return []packed{text}, err
}

func helloConfig(tag string) v1.Config {
	return v1.Config{
		Entrypoint:   []string{"/hello"},
		Env:          []string{"VERSION=" + tag},
		ExposedPorts: map[string]struct{}{helloPort + "/tcp": {}},
	}
}

// compile makes a static program of one file of Go that needs nothing but the
// standard library.
func compile(ctx context.Context, source []byte) ([]byte, error) {
	dir, err := os.MkdirTemp("", "pawl-compile-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string][]byte{"main.go": source, "go.mod": []byte("module program\n\ngo 1.24\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	program := filepath.Join(dir, "program")
	if _, err := run(ctx, dir, "env", "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off",
		"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "."); err != nil {
		return nil, err
	}
	return os.ReadFile(program)
}
