package gitsource

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/pawl-project/pawl/schema"
)

// What a commit may hold. A tree that names itself often enough describes more
// files than there are atoms, in a few kilobytes.
const (
	maxFiles       = 100_000  // of one commit, below the deployed path
	maxDirectories = 100_000  // visited for it
	maxDepth       = 64       // directories inside directories
	maxPathBytes   = 4096     // of one path
	maxTreeBytes   = 16 << 20 // of one directory's object
	maxTreeFaults  = 20       // reported of one directory
)

// A tree is a schema.Tree whose files are read from the object store.
type tree struct {
	repository *Repository
	files      []schema.TreeFile
}

// Files implements schema.Tree. The result is shared and read-only.
func (t *tree) Files() []schema.TreeFile { return t.files }

// Read implements schema.Tree.
func (t *tree) Read(f schema.TreeFile, limit int64) ([]byte, error) {
	if f.Mode != schema.ModeRegular {
		return nil, fmt.Errorf("%s is no regular file: %w", f.Path, schema.ErrRefused)
	}
	if f.Size > limit {
		return nil, fmt.Errorf("%s: %w", f.Path, tooLarge{size: f.Size, limit: limit})
	}
	content, err := t.repository.readKind(plumbing.NewHash(f.Blob), plumbing.BlobObject, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return content, nil
}

// A directory is one directory of a tree, as listed: runs of files and the
// directories between them, in Git's order, which is the order of full paths.
type directory struct {
	parts []part
}

// A part is either a run of files or one directory.
type part struct {
	files []schema.TreeFile
	name  string // of the directory
	tree  plumbing.Hash
}

// A lister walks one commit's tree.
type lister struct {
	repository  *Repository
	ctx         context.Context
	files       []schema.TreeFile
	directories int
}

// list returns the files below path of the tree root, sorted by path.
func (r *Repository) list(ctx context.Context, root plumbing.Hash, path string) ([]schema.TreeFile, error) {
	at, err := r.descend(root, path)
	if err != nil {
		return nil, err
	}
	l := &lister{repository: r, ctx: ctx}
	if err := l.walk("", at, 0); err != nil {
		return nil, err
	}
	return l.files, nil
}

// descend returns the tree at path.
func (r *Repository) descend(root plumbing.Hash, path string) (plumbing.Hash, error) {
	if path == "" {
		return root, nil
	}
	at := root
	for _, name := range strings.Split(path, "/") {
		entries, err := r.entries(at)
		if err != nil {
			return at, err
		}
		found := false
		for _, e := range entries {
			if string(e.name) == name && e.mode == modeDirectory {
				at, found = e.hash, true
				break
			}
		}
		if !found {
			return at, refuse("the commit has no directory %q, which is the one that is deployed", path)
		}
	}
	return at, nil
}

func (l *lister) walk(path string, h plumbing.Hash, depth int) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	if l.directories++; l.directories > maxDirectories {
		return refuse("the commit has more than %d directories", maxDirectories)
	}
	if depth > maxDepth {
		return refuse("%s...: more than %d directories inside one another", path[:min(len(path), 80)], maxDepth)
	}
	d, err := l.directory(path, h)
	if err != nil {
		return err
	}
	for _, p := range d.parts {
		if p.name != "" {
			if err := l.walk(path+p.name+"/", p.tree, depth+1); err != nil {
				return err
			}
			continue
		}
		if l.files = append(l.files, p.files...); len(l.files) > maxFiles {
			return refuse("the commit has more than %d files", maxFiles)
		}
	}
	return nil
}

// directory returns the listing of the tree h at path, from the cache when the
// same tree was listed at the same path before.
func (l *lister) directory(path string, h plumbing.Hash) (*directory, error) {
	key := directoryKey{path, h}
	if d, ok := l.repository.trees.directory(key); ok {
		return d, nil
	}
	entries, err := l.repository.entries(h)
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", path, err)
	}
	if err := checkNames(path, entries); err != nil {
		return nil, err
	}
	d := new(directory)
	for _, e := range entries {
		if e.mode == modeDirectory {
			d.parts = append(d.parts, part{name: string(e.name), tree: e.hash})
			continue
		}
		f, err := l.file(path, e)
		if err != nil {
			return nil, err
		}
		if n := len(d.parts); n == 0 || d.parts[n-1].name != "" {
			d.parts = append(d.parts, part{})
		}
		last := &d.parts[len(d.parts)-1]
		last.files = append(last.files, f)
	}
	l.repository.trees.putDirectory(key, d, len(entries))
	return d, nil
}

func (l *lister) file(path string, e entry) (schema.TreeFile, error) {
	f := schema.TreeFile{Path: path + string(e.name), Blob: e.hash.String()}
	switch e.mode {
	case modeSubmodule:
		f.Mode = schema.ModeSubmodule
		return f, nil
	case modeSymlink:
		f.Mode = schema.ModeSymlink
	default:
		f.Mode = schema.ModeRegular
	}
	var known bool
	if f.Size, known = l.repository.trees.size(e.hash); known {
		return f, nil
	}
	var err error
	if f.Size, err = l.repository.size(e.hash); err != nil {
		return f, fmt.Errorf("%s: %w", f.Path, err)
	}
	l.repository.trees.putSize(e.hash, f.Size)
	return f, nil
}

// The modes of entries that a tree may hold.
const (
	modeDirectory = "40000"
	modeSymlink   = "120000"
	modeSubmodule = "160000"
)

// An entry is one line of a tree object.
type entry struct {
	mode string
	name []byte
	hash plumbing.Hash
}

// entries reads a tree object: "<mode> <name>\0<hash>", over and over.
func (r *Repository) entries(h plumbing.Hash) ([]entry, error) {
	raw, err := r.readKind(h, plumbing.TreeObject, maxTreeBytes)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, 0, len(raw)/40)
	for len(raw) > 0 {
		mode, rest, ok := bytes.Cut(raw, []byte{' '})
		name, rest, ok2 := bytes.Cut(rest, []byte{0})
		if !ok || !ok2 || len(rest) < 20 {
			return nil, refuse("tree %s is malformed", h)
		}
		e := entry{name: name, hash: plumbing.Hash(rest[:20])}
		switch m := string(mode); m {
		case modeDirectory, modeSymlink, modeSubmodule, "100644", "100755", "100664":
			e.mode = m
		default:
			return nil, refuse("tree %s has the entry %q of an unknown mode %q", h, name, mode)
		}
		entries, raw = append(entries, e), rest[20:]
	}
	return entries, nil
}

// checkNames refuses names that no file of a repository has, and an order that
// is not Git's (which would let one name stand for two files).
func checkNames(path string, entries []entry) error {
	var faults []schema.Fault
	var before []byte
	for _, e := range entries {
		problem := badName(e.name)
		sortedAs := e.name
		if e.mode == modeDirectory {
			sortedAs = append(append([]byte{}, e.name...), '/')
		}
		switch {
		case problem != "":
		case len(path)+len(e.name) > maxPathBytes:
			problem = fmt.Sprintf("is longer than %d bytes with its path", maxPathBytes)
		case before != nil && bytes.Compare(before, sortedAs) >= 0:
			problem = "stands twice in its directory, or out of order"
		}
		before = sortedAs
		if problem == "" {
			continue
		}
		faults = append(faults, schema.Fault{
			Problem: fmt.Sprintf("the name %q %s", path+string(e.name[:min(len(e.name), 200)]), problem),
			Remedy:  "rename the file",
		})
		if len(faults) == maxTreeFaults {
			break
		}
	}
	if faults == nil {
		return nil
	}
	return &schema.Refusal{Faults: faults}
}

// badName says what is wrong with a file's name, or "".
func badName(name []byte) string {
	switch {
	case len(name) == 0:
		return "is empty"
	case string(name) == "." || string(name) == "..":
		return "leaves its directory"
	case strings.EqualFold(string(name), ".git"):
		return "is Git's own"
	case bytes.ContainsAny(name, "/\\"):
		return "holds a slash or a backslash"
	case !utf8.Valid(name):
		return "is not UTF-8"
	}
	for _, b := range name {
		if b < 0x20 || b == 0x7f {
			return "holds a control character"
		}
	}
	return ""
}
