package gitsource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/pawl-project/pawl/schema"
)

// pastEntries bounds how many entries of trees a look into the past remembers.
const pastEntries = 100_000

// A Step is one commit of the past with what it changed, seen from its first
// parent. It may be used until the function that was given it returns.
type Step struct {
	Commit schema.Commit // without its Tree
	past   *past
	after  plumbing.Hash // the tree at the deployed path; zero: there is none
	before plumbing.Hash // the same of the first parent; zero for the first commit, too
}

// A FileChange is a file whose content a commit changed. The blobs are hashes;
// "" means that the file is not there.
type FileChange struct {
	Path          string // relative to the deployed path
	Before, After string
}

// Past calls visit with the commit id and then with its first parents, the
// newest first, until visit wants no more. path is the deployed path, "" for the
// whole tree. It is whole when visit stopped it or when the first commit was
// reached; it is not when there were more than most commits or when a parent is
// missing, as in a clone that was cut short. It ends with ctx's error.
func (r *Repository) Past(ctx context.Context, id, path string, most int, visit func(*Step) (more bool, err error)) (whole bool, err error) {
	if path, err = cleanPath(path); err != nil {
		return false, err
	}
	p := &past{repository: r, path: path}
	c, err := p.commit(id)
	if err != nil {
		return false, err
	}
	for range most {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		step, parent, err := p.step(id, c)
		if errors.Is(err, schema.ErrNotFound) {
			return false, nil // its parent is missing
		}
		if err != nil {
			return false, err
		}
		more, err := visit(step)
		if err != nil || !more || parent == nil {
			return err == nil, err
		}
		id, c = c.ParentHashes[0].String(), parent
	}
	return false, nil
}

// Blob reads the content of a file by its blob's hash, up to limit bytes.
func (r *Repository) Blob(blob string, limit int64) ([]byte, error) {
	return r.readKind(plumbing.NewHash(blob), plumbing.BlobObject, limit)
}

// A past is one look back. It remembers trees: neighbours share most of them.
type past struct {
	repository *Repository
	path       string
	trees      map[plumbing.Hash][]entry
	held       int // entries in trees
}

func (p *past) commit(id string) (*object.Commit, error) {
	if !plumbing.IsHash(id) || len(id) != 40 {
		return nil, fmt.Errorf("%q is no full SHA-1 hash of a commit: %w", id, schema.ErrRefused)
	}
	raw, err := p.repository.readKind(plumbing.NewHash(id), plumbing.CommitObject, maxCommitBytes)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", id, err)
	}
	c, err := decodeCommit(raw)
	if err != nil {
		return nil, refuse("commit %s cannot be read: %v", id, err)
	}
	return c, nil
}

// step makes the Step of a commit and reads its first parent; nil: it has none.
func (p *past) step(id string, c *object.Commit) (*Step, *object.Commit, error) {
	subject, _, _ := strings.Cut(strings.TrimLeft(c.Message, "\n"), "\n")
	s := &Step{past: p, Commit: schema.Commit{
		ID: id, Author: c.Author.Name, Email: c.Author.Email, When: c.Author.When,
		Subject: subject[:min(len(subject), maxSubjectBytes)],
	}}
	var err error
	if s.after, err = p.at(c.TreeHash, p.path); err != nil || len(c.ParentHashes) == 0 {
		return s, nil, err
	}
	parent, err := p.commit(c.ParentHashes[0].String())
	if err != nil {
		return nil, nil, err
	}
	s.before, err = p.at(parent.TreeHash, p.path)
	return s, parent, err
}

// entries reads a tree; none for the zero hash.
func (p *past) entries(h plumbing.Hash) ([]entry, error) {
	if h.IsZero() {
		return nil, nil
	}
	if e, ok := p.trees[h]; ok {
		return e, nil
	}
	e, err := p.repository.entries(h)
	if err != nil {
		return nil, err
	}
	if p.trees == nil || p.held+len(e) > pastEntries {
		p.trees, p.held = map[plumbing.Hash][]entry{}, 0
	}
	p.trees[h] = e
	p.held += len(e)
	return e, nil
}

// at is the directory at path below a tree; zero when there is none.
func (p *past) at(tree plumbing.Hash, path string) (plumbing.Hash, error) {
	if path == "" {
		return tree, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		e, err := p.entry(tree, name)
		if err != nil || e.mode != modeDirectory {
			return plumbing.ZeroHash, err
		}
		tree = e.hash
	}
	return tree, nil
}

// entry looks a name up; the zero entry when it is not there.
func (p *past) entry(tree plumbing.Hash, name string) (entry, error) {
	entries, err := p.entries(tree)
	if err != nil {
		return entry{}, err
	}
	for _, e := range entries {
		if string(e.name) == name {
			return e, nil
		}
	}
	return entry{}, nil
}

// File is what the commit did to one file; Before and After are equal when it
// did nothing, and may both be "" then without a look whether the file is there.
func (s *Step) File(path string) (FileChange, error) {
	change := FileChange{Path: path}
	after, before := s.after, s.before
	names := strings.Split(path, "/")
	for i, name := range names {
		if after == before {
			return change, nil
		}
		a, err := s.past.entry(after, name)
		if err != nil {
			return change, err
		}
		b, err := s.past.entry(before, name)
		if err != nil {
			return change, err
		}
		if i == len(names)-1 {
			change.After, change.Before = a.blob(), b.blob()
			break
		}
		after, before = a.directory(), b.directory()
	}
	return change, nil
}

// Blob is the blob of a file in this commit, "" when it is not there.
func (s *Step) Blob(path string) (string, error) {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	tree, err := s.past.at(s.after, dir)
	if err != nil {
		return "", err
	}
	e, err := s.past.entry(tree, name)
	return e.blob(), err
}

// Changes lists the files that the commit changed, made and removed, sorted by path.
func (s *Step) Changes(ctx context.Context) ([]FileChange, error) {
	d := differ{past: s.past, ctx: ctx}
	if err := d.walk("", s.before, s.after, 0); err != nil {
		return nil, err
	}
	slices.SortFunc(d.changes, func(a, b FileChange) int { return strings.Compare(a.Path, b.Path) })
	return d.changes, nil
}

// A differ compares two trees; what is equal is not read.
type differ struct {
	past        *past
	ctx         context.Context
	changes     []FileChange
	directories int
}

func (d *differ) walk(path string, before, after plumbing.Hash, depth int) error {
	if before == after {
		return nil
	}
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if d.directories++; d.directories > maxDirectories || depth > maxDepth || len(d.changes) > maxFiles {
		return refuse("a commit of the past changes more than can be looked at")
	}
	old, err := d.past.entries(before)
	if err != nil {
		return err
	}
	fresh, err := d.past.entries(after)
	if err != nil {
		return err
	}
	pairs := map[string][2]entry{}
	for _, e := range old {
		pairs[string(e.name)] = [2]entry{e}
	}
	for _, e := range fresh {
		pairs[string(e.name)] = [2]entry{pairs[string(e.name)][0], e}
	}
	for name, pair := range pairs {
		if b, a := pair[0].blob(), pair[1].blob(); b != a {
			d.changes = append(d.changes, FileChange{Path: path + name, Before: b, After: a})
		}
		if err := d.walk(path+name+"/", pair[0].directory(), pair[1].directory(), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// blob is the hash of a regular file, "" for anything else.
func (e entry) blob() string {
	switch e.mode {
	case "", modeDirectory, modeSymlink, modeSubmodule:
		return ""
	}
	return e.hash.String()
}

// directory is the hash of a directory, zero for anything else.
func (e entry) directory() plumbing.Hash {
	if e.mode != modeDirectory {
		return plumbing.ZeroHash
	}
	return e.hash
}
