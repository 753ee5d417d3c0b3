package gitsource

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-project/pawl/schema"
)

func read(tb testing.TB, tree schema.Tree, path string) string {
	tb.Helper()
	for _, f := range tree.Files() {
		if f.Path == path {
			content, err := tree.Read(f, 1<<20)
			if err != nil {
				tb.Fatalf("read %s: %v", path, err)
			}
			return string(content)
		}
	}
	tb.Fatalf("no file %s", path)
	return ""
}

func paths(tree schema.Tree) []string {
	var all []string
	for _, f := range tree.Files() {
		all = append(all, f.Path)
	}
	return all
}

func TestCommitListsFilesInTheOrderOfPaths(t *testing.T) {
	work := newWork(t)
	if err := os.Symlink("a.yaml", filepath.Join(work, "link")); err != nil {
		t.Fatal(err)
	}
	id := commit(t, work, "First\n\nbody", map[string]string{
		"a.yaml": "a\n", "a/b.yaml": "ab\n", "a/c/d.yaml": "", "a-b.yaml": "a-b\n", "z/ü.yaml": "u",
	})
	r := open(t, filepath.Join(work, ".git"))

	head, err := r.Head("main")
	if err != nil || head != id {
		t.Fatalf("Head = %q, %v; want %q", head, err, id)
	}
	c, err := r.Commit(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	if c.ID != id || c.Author != "Ada" || c.Email != "ada@example.org" || c.Subject != "First" || time.Since(c.When) > time.Hour {
		t.Errorf("commit = %+v", c)
	}
	if diff := cmp.Diff([]string{"a-b.yaml", "a.yaml", "a/b.yaml", "a/c/d.yaml", "link", "z/ü.yaml"}, paths(c.Tree)); diff != "" {
		t.Error(diff)
	}
	for _, f := range c.Tree.Files() {
		switch f.Path {
		case "a/b.yaml":
			if f.Size != 3 || f.Mode != schema.ModeRegular || f.Blob != git(t, work, "rev-parse", "HEAD:a/b.yaml") {
				t.Errorf("%+v", f)
			}
			if _, err := c.Tree.Read(f, 2); !errors.Is(err, schema.ErrRefused) {
				t.Errorf("a file above the limit: %v", err)
			}
		case "link":
			if f.Mode != schema.ModeSymlink {
				t.Errorf("%+v", f)
			}
			if _, err := c.Tree.Read(f, 1<<20); !errors.Is(err, schema.ErrRefused) {
				t.Errorf("a symlink was read: %v", err)
			}
		}
	}
	if got := read(t, c.Tree, "a/b.yaml"); got != "ab\n" {
		t.Errorf("content %q", got)
	}

	sub, err := r.Commit(t.Context(), id, "/a/c/")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"d.yaml"}, paths(sub.Tree)); diff != "" {
		t.Error(diff)
	}
	for _, path := range []string{"nowhere", "a.yaml", "a/nowhere", "../x", "a/.git", "a//c"} {
		var refusal *schema.Refusal
		if _, err := r.Commit(t.Context(), id, path); !errors.As(err, &refusal) {
			t.Errorf("path %q: %v", path, err)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	work := newWork(t)
	commit(t, work, "First", map[string]string{"a": "a"})
	r := open(t, filepath.Join(work, ".git"))
	if _, err := r.Commit(t.Context(), strings.Repeat("ab", 20), ""); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("commit: %v", err)
	}
	for _, id := range []string{"", "main", "abc", strings.Repeat("ab", 32), strings.Repeat("zz", 20)} {
		if _, err := r.Commit(t.Context(), id, ""); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("id %q: %v", id, err)
		}
	}
	if _, err := r.Commit(t.Context(), git(t, work, "rev-parse", "HEAD^{tree}"), ""); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a tree as commit: %v", err)
	}
	if _, err := r.Head("gone"); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("branch: %v", err)
	}
	for _, branch := range []string{"", "../main", "a..b", "x.lock", "a b"} {
		if _, err := r.Head(branch); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("branch %q: %v", branch, err)
		}
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("Open: %v", err)
	}
}

// Repacking moves every object while the repository stays open.
func TestGitWorksUnderneath(t *testing.T) {
	work := newWork(t)
	r := open(t, filepath.Join(work, ".git"))
	var ids []string
	content := strings.Repeat("a line that deltas well\n", 300)
	for i := range 20 {
		ids = append(ids, commit(t, work, fmt.Sprint("commit ", i), map[string]string{"big.yaml": content + fmt.Sprint(i), fmt.Sprintf("d%d/f.yaml", i): fmt.Sprint(i)}))
		switch i % 4 {
		case 1:
			git(t, work, "repack", "-q", "-d")
		case 2:
			git(t, work, "gc", "-q", "--prune=now")
		case 3:
			git(t, work, "pack-refs", "--all")
		}
		head, err := r.Head("main")
		if err != nil || head != ids[i] {
			t.Fatalf("Head = %s, %v, want %s", head, err, ids[i])
		}
		for j, id := range ids {
			c, err := r.Commit(t.Context(), id, "")
			if err != nil {
				t.Fatalf("commit %d after %d: %v", j, i, err)
			}
			if got := read(t, c.Tree, "big.yaml"); got != content+fmt.Sprint(j) {
				t.Fatalf("commit %d after %d: wrong content", j, i)
			}
		}
	}
	if n := len(r.dirs[0].packs); n > 3 {
		t.Errorf("%d packs are remembered, most of them are gone", n)
	}
}

// Every object of a packed repository reads as git cat-file prints it, deltas
// of both kinds included.
func TestPackedObjectsReadAsGitReadsThem(t *testing.T) {
	work := newWork(t)
	for i := range 30 {
		lines := make([]string, 400)
		for j := range lines {
			lines[j] = fmt.Sprintf("line %d of %d", j, (i*j)%7)
		}
		commit(t, work, fmt.Sprint(i), map[string]string{"a.yaml": strings.Join(lines, "\n"), fmt.Sprintf("%d/b.yaml", i): fmt.Sprint(i)})
	}
	for _, offsets := range []string{"true", "false"} {
		git(t, work, "-c", "repack.useDeltaBaseOffset="+offsets, "repack", "-q", "-a", "-d", "-f", "--depth=40")
		r := open(t, filepath.Join(work, ".git"))
		deltas := 0
		for _, line := range strings.Split(git(t, work, "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype) %(objectsize) %(deltabase)"), "\n") {
			var name, kind, delta string
			var size int64
			fmt.Sscan(line, &name, &kind, &size, &delta)
			if strings.Trim(delta, "0") != "" {
				deltas++
			}
			h := hashOf(name)
			got, err := r.size(h)
			if err != nil || got != size {
				t.Fatalf("size of %s = %d, %v; want %d", name, got, err, size)
			}
			gotKind, content, err := r.dirs[0].read(h, size)
			if err != nil || gotKind.String() != kind {
				t.Fatalf("read %s: %s, %v", name, gotKind, err)
			}
			if written := gitInput(t, work, string(content), "hash-object", "-t", kind, "--stdin"); written != name {
				t.Fatalf("%s reads as %s", name, written)
			}
			if size > 0 {
				if _, _, err := r.dirs[0].read(h, size-1); !errors.Is(err, schema.ErrRefused) {
					t.Fatalf("read above the limit: %v", err)
				}
			}
		}
		if deltas < 20 {
			t.Errorf("only %d deltas, the test proves little", deltas)
		}
	}
}

func TestQuarantineIsSeenOnlyThroughWithObjects(t *testing.T) {
	for _, packed := range []bool{false, true} {
		work := newWork(t)
		commit(t, work, "First", map[string]string{"a": "a", "dir/b": "b"})
		bare := filepath.Join(t.TempDir(), "bare.git")
		git(t, work, "clone", "-q", "--bare", work, bare)
		id := commit(t, work, "Second", map[string]string{"dir/c": "c"})

		quarantine := filepath.Join(bare, "objects", "tmp_objdir-incoming-x")
		if err := os.MkdirAll(filepath.Join(quarantine, "pack"), 0o755); err != nil {
			t.Fatal(err)
		}
		if packed {
			pack := gitInput(t, work, id+"\n^main~1\n", "pack-objects", "-q", "--revs", filepath.Join(quarantine, "pack", "pack"))
			if pack == "" {
				t.Fatal("no pack")
			}
		} else {
			for _, name := range strings.Fields(git(t, work, "rev-list", "--objects", "--no-object-names", "main~1..main")) {
				raw, err := os.ReadFile(filepath.Join(work, ".git/objects", name[:2], name[2:]))
				if err != nil {
					t.Fatal(err)
				}
				os.MkdirAll(filepath.Join(quarantine, name[:2]), 0o755)
				if err := os.WriteFile(filepath.Join(quarantine, name[:2], name[2:]), raw, 0o444); err != nil {
					t.Fatal(err)
				}
			}
		}
		r := open(t, bare)
		if _, err := r.Commit(t.Context(), id, ""); !errors.Is(err, schema.ErrNotFound) {
			t.Fatalf("seen without its quarantine: %v", err)
		}
		in := r.WithObjects(quarantine)
		c, err := in.Commit(t.Context(), id, "")
		if err != nil {
			t.Fatal(err)
		}
		if read(t, c.Tree, "dir/b") != "b" || read(t, c.Tree, "dir/c") != "c" {
			t.Error("wrong content")
		}
		in.Close()
	}
}

// treeOf writes tree objects that git(1) would not.
func treeOf(tb testing.TB, work string, lines ...string) string {
	tb.Helper()
	var raw bytes.Buffer
	for _, line := range lines {
		mode, rest, _ := strings.Cut(line, " ")
		hash, name, _ := strings.Cut(rest, " ")
		h := hashOf(hash)
		fmt.Fprintf(&raw, "%s %s\x00%s", mode, name, h[:])
	}
	return gitInput(tb, work, raw.String(), "hash-object", "-t", "tree", "-w", "--stdin", "--literally")
}

func TestStrangeTreesAreRefused(t *testing.T) {
	work := newWork(t)
	blob := gitInput(t, work, "x", "hash-object", "-w", "--stdin")
	empty := treeOf(t, work)
	for name, lines := range map[string][]string{
		"leaves its directory":    {"100644 " + blob + " .."},
		"is Git's own":            {"40000 " + empty + " .GIT"},
		"a backslash":             {"100644 " + blob + " a\\b"},
		"holds a slash":           {"100644 " + blob + " /etc"},
		"is not UTF-8":            {"100644 " + blob + " \xff"},
		"a control character":     {"100644 " + blob + " a\nb"},
		"stands twice":            {"100644 " + blob + " a", "100644 " + blob + " a"},
		"or out of order":         {"100644 " + blob + " b", "100644 " + blob + " a"},
		"unknown mode":            {"060000 " + blob + " device"},
		"is empty":                {"100644 " + blob + " "},
		"is longer than":          {"100644 " + blob + " " + strings.Repeat("x", 5000)},
		"is a tree, not a commit": nil,
	} {
		tree := treeOf(t, work, lines...)
		id := tree
		if lines != nil {
			id = git(t, work, "commit-tree", "-m", "x", tree)
		}
		_, err := open(t, filepath.Join(work, ".git")).Commit(t.Context(), id, "")
		var refusal *schema.Refusal
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	submodule := git(t, work, "commit-tree", "-m", "x", treeOf(t, work, "160000 "+strings.Repeat("ab", 20)+" sub"))
	c, err := open(t, filepath.Join(work, ".git")).Commit(t.Context(), submodule, "")
	if err != nil || c.Tree.Files()[0].Mode != schema.ModeSubmodule {
		t.Errorf("submodule: %v", err)
	}
}

// A few trees that name one another describe 10^20 files.
func TestTreeBombIsRefused(t *testing.T) {
	work := newWork(t)
	blob := gitInput(t, work, "x", "hash-object", "-w", "--stdin")
	for _, leaf := range []string{"100644 " + blob, "40000 " + treeOf(t, work)} {
		tree := strings.Fields(leaf)[1]
		mode := strings.Fields(leaf)[0]
		for range 20 {
			var lines []string
			for i := range 10 {
				lines = append(lines, fmt.Sprintf("%s %s d%d", mode, tree, i))
			}
			tree, mode = treeOf(t, work, lines...), "40000"
		}
		id := git(t, work, "commit-tree", "-m", "bomb", tree)
		_, err := open(t, filepath.Join(work, ".git")).Commit(t.Context(), id, "")
		var refusal *schema.Refusal
		if !errors.As(err, &refusal) {
			t.Errorf("bomb: %v", err)
		}
	}
	deep := treeOf(t, work, "100644 "+blob+" leaf")
	for range 100 {
		deep = treeOf(t, work, "40000 "+deep+" d")
	}
	id := git(t, work, "commit-tree", "-m", "deep", deep)
	if _, err := open(t, filepath.Join(work, ".git")).Commit(t.Context(), id, ""); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("deep: %v", err)
	}
}
