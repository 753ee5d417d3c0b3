package schema_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The borders of the module: which room may import what, and what the pure
// cores may not do. They are held here and not in a review, because one import
// in the wrong direction is cheap today and dear in a year.

const module = "github.com/pawl-project/pawl"

// directions says what the packages below from may never import, tests
// included: each half must be buildable and testable without the other.
var directions = []struct{ from, never, why string }{
	{"schema", "reconciler", "schema is the leaf both halves stand on"},
	{"schema", "nodeagent", "schema is the leaf both halves stand on"},
	{"schema", "cmd", "nothing imports a command"},
	{"reconciler", "nodeagent", "the halves meet only in the store, in the nouns of schema"},
	{"reconciler", "cmd", "nothing imports a command"},
	{"nodeagent", "reconciler", "the halves meet only in the store, in the nouns of schema"},
	{"nodeagent", "cmd", "nothing imports a command"},
}

// onlyImporters names the one room that may import a big dependency. Test files
// are exempt: they may build the other side of a wire to speak to.
var onlyImporters = []struct{ dependency, room, why string }{
	{"cuelang.org/go", "schema/manifest", "everybody else sees objects or a refusal"},
	{"github.com/nats-io/nats.go", "schema/kv", "nobody else can then write without compare-and-set"},
	{"github.com/nats-io/nats-server", "reconciler/natsserver", "accounts and permissions have one home"},
	{"github.com/go-git/go-git", "reconciler/gitsource", "behind it there are only commits and trees"},
	{"github.com/containerd/containerd", "nodeagent/containerd", "the agent sees its own small Runtime"},
	{"github.com/google/nftables", "nodeagent/network", "rules of the kernel have one owner"},
	{"github.com/go-jose/go-jose", "reconciler/access/satoken", "who reads tokens elsewhere reads them differently"},
	{"filippo.io/age", "schema/kv", "a second place that seals is a second place that leaks"},
	{"github.com/google/go-containerregistry", "examples/images", "a node pulls through containerd"},
	{"k8s.io/kubectl", "cmd/pawl", "kubectl's commands are the client's"},
}

// neverLinked names what a binary must not contain, however it would get in.
var neverLinked = []struct{ binary, dependency, why string }{
	{"cmd/pawld", "k8s.io/kubectl", "kubectl costs the idle daemon 20 MiB"},
	{"cmd/pawld", "k8s.io/apiserver", "it costs 57 MiB idle, against 20 MiB by hand"},
	{"cmd/pawl", "github.com/nats-io/nats-server", "a client starts no server"},
	{"cmd/pawl", module + "/reconciler", "a client decides nothing; it asks"},
}

// pureRooms decide without doing. What they may import besides schema:
var pureRooms = []string{"reconciler/plan", "reconciler/placement", "nodeagent/pod", "reconciler/api/table", "cmd/pawl/why"}

var pureImports = []string{"k8s.io/api", "k8s.io/apimachinery", "k8s.io/utils/ptr"}

// impureImports are the parts of what pureImports and the standard library
// offer that do things, wait or roll dice.
var impureImports = []struct{ path, why string }{
	{"os", "I/O"}, {"io/ioutil", "I/O"}, {"net", "I/O"}, {"syscall", "I/O"}, {"plugin", "I/O"},
	{"log", "a decision carries its reason, and whoever carries it out logs it"},
	{"context", "there is nothing to wait for or to cancel"},
	{"math/rand", "equal inputs must give equal answers"},
	{"crypto/rand", "equal inputs must give equal answers"},
	{"k8s.io/apimachinery/pkg/util/rand", "equal inputs must give equal answers"},
	{"k8s.io/apimachinery/pkg/util/uuid", "equal inputs must give equal answers"},
	{"k8s.io/apimachinery/pkg/util/wait", "there is nothing to wait for"},
}

// pureParts of impureImports only compute.
var pureParts = []string{"net/netip", "net/url"}

// impureCalls need an import that is otherwise welcome.
var impureCalls = map[string][]string{
	"time":                                 {"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"},
	"k8s.io/apimachinery/pkg/apis/meta/v1": {"Now", "NowMicro"},
}

// topLevel is all that may stand at the repository's root.
var topLevel = []string{
	".ci", ".gitignore", ".golangci.yml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
	"cmd", "examples", "go.mod", "go.sum", "nodeagent", "reconciler", "schema",
}

// emptyNames say nothing of what a package provides.
var emptyNames = []string{"base", "common", "helper", "helpers", "lib", "misc", "shared", "types", "util", "utils"}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range ours(t) {
		for _, d := range directions {
			if !within(p.room(), d.from) {
				continue
			}
			for _, dep := range p.everyImport() {
				if within(dep, module+"/"+d.never) {
					t.Errorf("%s imports %s: %s", p.room(), dep, d.why)
				}
			}
		}
	}
}

func TestOneRoomImportsEachBigDependency(t *testing.T) {
	for _, p := range ours(t) {
		for _, o := range onlyImporters {
			if within(p.room(), o.room) {
				continue
			}
			for _, dep := range p.Imports {
				if within(dep, o.dependency) {
					t.Errorf("%s imports %s, which only %s may: %s", p.room(), dep, o.room, o.why)
				}
			}
		}
	}
}

func TestBinariesStayLean(t *testing.T) {
	packages := load(t)
	for _, n := range neverLinked {
		for _, dep := range packages[module+"/"+n.binary].Deps {
			if within(dep, n.dependency) {
				t.Errorf("%s contains %s: %s", n.binary, dep, n.why)
			}
		}
	}
}

func TestPureCoresImportNothingThatActs(t *testing.T) {
	packages := load(t)
	for _, p := range ours(t) {
		if !pure(p.room()) {
			continue
		}
		for _, dep := range p.Imports {
			standard := packages[dep] != nil && packages[dep].Standard
			sibling := pure(strings.TrimPrefix(dep, module+"/"))
			if !standard && !sibling && dep != module+"/schema" && !slices.ContainsFunc(pureImports, func(ok string) bool { return within(dep, ok) }) {
				t.Errorf("%s imports %s: a pure core imports only schema, %s and the standard library", p.room(), dep, strings.Join(pureImports, ", "))
			}
			for _, bad := range impureImports {
				if within(dep, bad.path) && !slices.Contains(pureParts, dep) {
					t.Errorf("%s imports %s: %s", p.room(), dep, bad.why)
				}
			}
		}
	}
}

func TestPureCoresHaveNoClockAndNoGoroutine(t *testing.T) {
	for _, p := range ours(t) {
		if !pure(p.room()) {
			continue
		}
		fset := token.NewFileSet()
		for _, file := range parse(t, fset, p, p.GoFiles) {
			names := importNames(file)
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: a pure core starts no goroutine", fset.Position(n.Pos()))
				case *ast.SelectorExpr:
					x, ok := n.X.(*ast.Ident)
					if ok && slices.Contains(impureCalls[names[x.Name]], n.Sel.Name) {
						t.Errorf("%s: %s.%s: a pure core is told the time, it never asks", fset.Position(n.Pos()), x.Name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range ours(t) {
		files := p.GoFiles
		if len(files) == 0 { // a package of tests only
			files = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		if !slices.ContainsFunc(parse(t, token.NewFileSet(), p, files), func(f *ast.File) bool { return f.Doc != nil }) {
			t.Errorf("%s has no package comment: say what the package is for and what it refuses to do", p.room())
		}
		if slices.Contains(emptyNames, p.Name) {
			t.Errorf("%s: %q says nothing; name a package for what it provides or for the dependency it wraps", p.room(), p.Name)
		}
	}
}

// A skipped test looks like a passed one. What cannot run here fails and says why.
func TestNoTestSkips(t *testing.T) {
	for _, p := range ours(t) {
		fset := token.NewFileSet()
		for _, file := range parse(t, fset, p, slices.Concat(p.TestGoFiles, p.XTestGoFiles)) {
			ast.Inspect(file, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
					if x, ok := s.X.(*ast.Ident); ok && (x.Name == "t" || x.Name == "b") {
						t.Errorf("%s: %s.%s: fail and say what is missing", fset.Position(n.Pos()), x.Name, s.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	for _, name := range tracked(t) {
		if !slices.Contains(topLevel, name) {
			t.Errorf("%s stands at the top of the repository, where only these may: %s", name, strings.Join(topLevel, " "))
		}
	}
}

// A pkg is what `go list` says of one package.
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	Standard     bool
	DepOnly      bool
	Module       *struct{ Path string }
	Deps         []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Error        *struct{ Err string }
}

// room is the package's path within the module: "reconciler/plan".
func (p *pkg) room() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func (p *pkg) everyImport() []string {
	return slices.Concat(p.Imports, p.TestImports, p.XTestImports)
}

var listing = sync.OnceValues(func() (map[string]*pkg, error) {
	fields := "ImportPath,Name,Dir,Standard,DepOnly,Module,Deps,Imports,TestImports,XTestImports,GoFiles,TestGoFiles,XTestGoFiles,Error"
	list := exec.Command("go", "list", "-e", "-deps", "-json="+fields, "./...")
	list.Dir = root
	// The binaries are built without cgo, so that is what is looked at.
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, err
	}
	packages := map[string]*pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := new(pkg)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		packages[p.ImportPath] = p
	}
})

// root is the repository's root, seen from this package.
const root = ".."

func load(t *testing.T) map[string]*pkg {
	t.Helper()
	packages, err := listing()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return packages
}

// ours is the packages of this module, sorted.
func ours(t *testing.T) []*pkg {
	t.Helper()
	var out []*pkg
	for _, p := range load(t) {
		if p.Module != nil && p.Module.Path == module {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *pkg) int { return strings.Compare(a.ImportPath, b.ImportPath) })
	if len(out) == 0 {
		t.Fatal("go list found no package of this module")
	}
	return out
}

// parse reads files of p; what does not parse is the compiler's to report.
func parse(t *testing.T, fset *token.FileSet, p *pkg, files []string) []*ast.File {
	t.Helper()
	var out []*ast.File
	for _, name := range files {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			t.Error(err)
			continue
		}
		out = append(out, f)
	}
	return out
}

// importNames maps the names by which a file knows its imports to their paths.
func importNames(file *ast.File) map[string]string {
	names := map[string]string{}
	for _, i := range file.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		name := path[strings.LastIndex(path, "/")+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		names[name] = path
	}
	return names
}

// tracked is what stands at the top: what Git knows, or every entry where the
// source came without its repository.
func tracked(t *testing.T) []string {
	t.Helper()
	var names []string
	if _, err := os.Stat(filepath.Join(root, ".git")); err == nil {
		// A clone made by another user is still one to look at.
		out, err := exec.Command("git", "-C", root, "-c", "safe.directory=*", "ls-files", "-z").Output()
		if err != nil {
			t.Fatalf("git ls-files: %v", err)
		}
		for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			top, _, _ := strings.Cut(name, "/")
			names = append(names, top)
		}
	} else {
		entries, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func pure(room string) bool {
	return slices.ContainsFunc(pureRooms, func(r string) bool { return within(room, r) })
}

// within says whether path is the package root or below it: "os" holds "os/exec",
// not "oslo". A major version's suffix belongs to the root: go-git is go-git/v5.
func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}
