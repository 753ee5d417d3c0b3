package manifest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// refusalOf compiles a tree that must be refused.
func refusalOf(t *testing.T, tree schema.Tree) *schema.Refusal {
	t.Helper()
	_, err := NewCompiler(Options{}).Compile(context.Background(), tree)
	var refusal *schema.Refusal
	if !errors.As(err, &refusal) || !errors.Is(err, schema.ErrRefused) {
		t.Fatalf("got %v, want a refusal", err)
	}
	return refusal
}

func wantFault(t *testing.T, r *schema.Refusal, part string) {
	t.Helper()
	if !strings.Contains(r.Error(), part) {
		t.Errorf("no fault says %q:\n%.2000s", part, r.Error())
	}
}

// listedTree is a tree whose files are only listed: reading one fails the test.
type listedTree struct {
	t     *testing.T
	files []schema.TreeFile
}

func (l listedTree) Files() []schema.TreeFile { return l.files }

func (l listedTree) Read(f schema.TreeFile, _ int64) ([]byte, error) {
	l.t.Errorf("%s is read", f.Path)
	return nil, schema.ErrNotFound
}

func TestRefusedUnread(t *testing.T) {
	r := refusalOf(t, listedTree{t, []schema.TreeFile{
		{Path: "huge.yaml", Size: 100 << 20},
		{Path: "link.yaml", Mode: schema.ModeSymlink},
		{Path: "link", Mode: schema.ModeSymlink},
		{Path: "module", Mode: schema.ModeSubmodule},
		{Path: "k/kustomization.yaml", Size: 10},
		{Path: "README.md", Size: 1 << 30},
		{Path: ".hidden.yaml", Size: 1 << 30},
		{Path: ".github/link", Mode: schema.ModeSymlink},
	}})
	if len(r.Faults) != 5 {
		t.Errorf("%d faults, want 5:\n%s", len(r.Faults), r.Error())
	}
	wantFault(t, r, "huge.yaml: has 104857600 bytes, the limit of a manifest is 2097152; split it")
	wantFault(t, r, "link.yaml: is a symbolic link")
	wantFault(t, r, "module: is a submodule")
	wantFault(t, r, "k/kustomization.yaml: kustomize is not built")

	var many []schema.TreeFile
	for i := range 200 {
		many = append(many, schema.TreeFile{Path: fmt.Sprintf("%d.yaml", i), Size: maxFileBytes})
	}
	wantFault(t, refusalOf(t, listedTree{t, many}), "the manifests have 419430400 bytes together, the limit is 268435456")
}

func TestCaps(t *testing.T) {
	deep := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\na: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	var documents, items strings.Builder
	for i := range maxDocuments + 1 {
		fmt.Fprintf(&documents, "a: %d\n---\n", i)
	}
	items.WriteString("apiVersion: v1\nkind: List\nitems:\n")
	for range maxFileObjects + 1 {
		items.WriteString("- {}\n")
	}
	bytes := "a: &a \"" + strings.Repeat("x", 100_000) + "\"\nb: [" + strings.Repeat("*a, ", 100) + "]\n"
	data := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: \"" + strings.Repeat("x", maxDataBytes) + "\"\n"
	for name, c := range map[string]struct{ text, fault string }{
		"depth":     {deep, "nested deeper than 64 levels"},
		"documents": {documents.String(), "has 2001 documents, the limit is 2000"},
		"objects":   {items.String(), "objects, the limit is 5000"},
		"text":      {bytes, "grows too large once its aliases are expanded"},
		"data":      {data, "holds 1048577 bytes, the limit is 1048576"},
		"utf-8":     {"a: \xff\n", "is not UTF-8 text"},
		"faults":    {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {" + strings.Repeat("a: 1, ", 1) + manyKeys(500) + "}\n", "more faults in this file are not shown"},
	} {
		t.Run(name, func(t *testing.T) {
			wantFault(t, refusalOf(t, MemTree(map[string]string{"a.yaml": c.text})), c.fault)
			if name == "depth" {
				deepJSON := `{"a": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`
				wantFault(t, refusalOf(t, MemTree(map[string]string{"a.json": deepJSON})), c.fault)
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: %d, ", i, i)
	}
	return b.String()
}

// A file at the cap that is made of the smallest values there are costs memory
// for a moment, and gives it back.
func TestDenseFileGivesItsMemoryBack(t *testing.T) {
	dense := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\na: [" + strings.Repeat("1,", (maxFileBytes-100)/2) + "]\n"
	c := NewCompiler(Options{})
	if _, err := c.Compile(context.Background(), MemTree(map[string]string{"a.yaml": dense, "b.yaml": dense})); err == nil {
		t.Fatal("accepted")
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 200<<20 {
		t.Errorf("%d MiB are in use afterwards", m.HeapAlloc>>20)
	}
}

func TestDirTree(t *testing.T) {
	root := t.TempDir()
	for path, content := range map[string]string{"a.yaml": fineConfigMap, "sub/b.yml": strings.ReplaceAll(fineConfigMap, "fine", "b"), ".git/config.yaml": "x", "sub/.hidden.yaml": "x", "notes.txt": "x"} {
		full := filepath.Join(root, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := DirTree(root)
	if err != nil {
		t.Fatal(err)
	}
	result, err := NewCompiler(Options{}).Compile(context.Background(), tree)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Objects) != 2 || result.Files != 2 {
		t.Errorf("%d objects in %d files, want 2 in 2", len(result.Objects), result.Files)
	}
	one, err := DirTree(filepath.Join(root, "a.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if result, err = NewCompiler(Options{}).Compile(context.Background(), one); err != nil || len(result.Objects) != 1 {
		t.Errorf("one file: %v, %v", result, err)
	}
	if err := os.Symlink("a.yaml", filepath.Join(root, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	if tree, err = DirTree(root); err != nil {
		t.Fatal(err)
	}
	wantFault(t, refusalOf(t, tree), "link.yaml: is a symbolic link")
}

// The cache holds what was used last, and no more than its bound.
func TestCacheIsBounded(t *testing.T) {
	c := newCache()
	const size = cacheBytes / 4
	for i := range 10 {
		c.put(fmt.Sprint(i), "blob", &fileResult{}, size)
		c.get("0", "blob")
	}
	if c.bytes > cacheBytes || c.order.Len() > 3 {
		t.Errorf("%d entries of %d bytes", c.order.Len(), c.bytes)
	}
	if c.get("0", "blob") == nil || c.get("9", "blob") == nil || c.get("5", "blob") != nil {
		t.Error("not the least recently used ones were dropped")
	}
}

// One object of a changed file changes; the others are the very same values.
func TestOnlyChangedFilesAreCompiled(t *testing.T) {
	files := map[string]string{"a.yaml": fineConfigMap, "b.yaml": strings.ReplaceAll(fineConfigMap, "fine", "b")}
	c := NewCompiler(Options{})
	first, err := c.Compile(context.Background(), MemTree(files))
	if err != nil {
		t.Fatal(err)
	}
	files["b.yaml"] += "data: {x: z}\n"
	second, err := c.Compile(context.Background(), MemTree(files))
	if err != nil {
		t.Fatal(err)
	}
	if first.Objects[1] != second.Objects[1] || first.Objects[0] == second.Objects[0] {
		t.Errorf("not only the changed object was made anew")
	}
}

// JSON writes < with six bytes. Accepted, these could never be stored, or their
// pods never reported.
func TestObjectsThatFitIntoNoMessage(t *testing.T) {
	for name, c := range map[string]struct{ text, limit string }{
		"a ConfigMap": {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: \"" + strings.Repeat("<", 600<<10) + "\"}\n", "3145728"},
		"a Pod":       {"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: \"busybox:1\", args: [\"" + strings.Repeat("x", 800<<10) + "\"]}]}\n", "786432"},
	} {
		t.Run(name, func(t *testing.T) {
			wantFault(t, refusalOf(t, MemTree(map[string]string{"a.yaml": c.text})), "bytes as JSON, the limit is "+c.limit)
		})
	}
}
