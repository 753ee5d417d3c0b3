package blame

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/reconciler/gitsource"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/manifest"
)

// The CUE of a test's repository is evaluated in this executable.
func TestMain(m *testing.M) {
	manifest.ChildMain()
	os.Exit(m.Run())
}

// A rig is a repository and the objects that its newest commit deploys.
type rig struct {
	t       testing.TB
	dir     string
	path    string // that is deployed
	clock   int
	objects map[schema.ObjectKey]schema.Object
}

func newRig(t testing.TB) *rig {
	g := &rig{t: t, dir: t.TempDir(), objects: map[schema.ObjectKey]schema.Object{}}
	g.git("init", "-q", "-b", "main")
	g.git("config", "maintenance.auto", "false")
	return g
}

func (g *rig) git(args ...string) string {
	g.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = g.dir
	date := fmt.Sprintf("2026-11-01T10:%02d:00Z", g.clock%60)
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/nonexistent", "GIT_AUTHOR_DATE="+date, "GIT_COMMITTER_DATE="+date,
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org")
	out, err := cmd.CombinedOutput()
	if err != nil {
		g.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes files and commits them; a file whose content is "-" is removed.
func (g *rig) commit(subject string, files map[string]string) string {
	g.t.Helper()
	g.clock++
	for name, content := range files {
		file := filepath.Join(g.dir, name)
		if content == "-" {
			if err := os.Remove(file); err != nil {
				g.t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			g.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	g.git("add", "-A")
	g.git("commit", "-q", "--allow-empty", "-m", subject)
	return g.git("rev-parse", "HEAD")
}

// deploy makes the objects of the newest commit, as the reconciler stamps them.
func (g *rig) deploy() {
	g.t.Helper()
	repository, err := gitsource.Open(filepath.Join(g.dir, ".git"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer repository.Close()
	id := g.git("rev-parse", "HEAD")
	c, err := repository.Commit(g.t.Context(), id, g.path)
	if err != nil {
		g.t.Fatal(err)
	}
	result, err := manifest.NewCompiler(manifest.Options{}).Compile(g.t.Context(), c.Tree)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, o := range result.Objects {
		o := o.DeepCopyObject().(schema.Object)
		a := o.GetAnnotations()
		a[schema.AnnotationRevision], a[schema.AnnotationAuthor] = id, "Ada <ada@example.org>"
		o.SetAnnotations(a)
		g.objects[schema.KeyOf(o)] = o
	}
}

func (g *rig) blamer(change func(*Options)) *Blamer {
	o := Options{
		Dir: filepath.Join(g.dir, ".git"), Path: g.path,
		Object: func(k schema.ObjectKey) (schema.Object, bool) { o, ok := g.objects[k]; return o, ok },
	}
	if change != nil {
		change(&o)
	}
	return New(o)
}

// ask returns the answer, one line for the object's commits, one for each field
// and one for the note.
func (g *rig) ask(k schema.ObjectKey) string {
	g.t.Helper()
	b, err := g.blamer(nil).Blame(g.t.Context(), k)
	if err != nil {
		g.t.Fatal(err)
	}
	return tell(b)
}

func tell(b *schema.Blame) string {
	var lines []string
	add := func(what string, c schema.BlameCommit) string {
		return fmt.Sprintf("%s: %s at %s", what, c.Subject, source(c.File, c.Line))
	}
	if b.Created != nil {
		lines = append(lines, add("created", *b.Created))
	}
	lines = append(lines, add("changed", b.Changed))
	text := func(s *string) string {
		if s == nil {
			return "none"
		}
		return *s
	}
	for _, f := range b.Fields {
		lines = append(lines, add(fmt.Sprintf("%s (%s) %s -> %s", f.Path, f.Source, text(f.Old), text(f.New)), f.BlameCommit))
	}
	if b.Note != "" {
		lines = append(lines, b.Note)
	}
	return strings.Join(lines, "\n")
}

func want(t testing.TB, got string, lines ...string) {
	t.Helper()
	if text := strings.Join(lines, "\n"); got != text {
		t.Errorf("got\n%s\n\nwant\n%s", got, text)
	}
}

var web = schema.ObjectKey{Kind: schema.Deployments, Namespace: "default", Name: "web"}

// deployment is a manifest of ten lines and one for each more.
func deployment(name string, replicas int, image string, more ...string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers:
      - name: main
        image: %[3]s
`, name, replicas, image) + strings.Join(more, "\n")
}
