package containerd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// seccompProfile puts a profile into the node's directory.
func (g *rig) seccompProfile(name, text string) {
	g.tb.Helper()
	file := filepath.Join(g.opts.DataDir, "seccomp", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		g.tb.Fatal(err)
	}
}

// TestLocalFilter reads profiles that are not there, lead out or are no profiles.
func TestLocalFilter(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good": `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`,
		"typo": `{"defaultAction":"SCMP_ACT_ALLOW","syscall":[]}`,
		"none": `{}`, "text": `hello`, "long": strings.Repeat(" ", maxProfile+1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"typo": schema.ErrRefused, "none": schema.ErrRefused, "text": schema.ErrRefused, "long": schema.ErrRefused,
		"out": schema.ErrRefused, "../good": schema.ErrRefused, "missing": schema.ErrNotFound,
	} {
		if _, err := localFilter(dir, name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if f, err := localFilter(dir, "good"); err != nil || len(f.Syscalls) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := localFilter(filepath.Join(dir, "nowhere"), "good"); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("no directory: %v", err)
	}
}

func FuzzParseFilter(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, text []byte) {
		filter, err := parseFilter(text, func(err error) error { return err })
		if err == nil && filter.DefaultAction == "" {
			t.Error("a profile without defaultAction was taken")
		}
	})
}
