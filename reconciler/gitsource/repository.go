package gitsource

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/pawl-project/pawl/schema"
)

const (
	maxCommitBytes  = 1 << 20 // of one commit object, message included
	maxSubjectBytes = 1 << 10 // of the first line that is kept of it
)

// A Repository reads a bare repository on disk. It may be used by several
// goroutines, and git(1) may write to the repository, repack it and collect its
// garbage meanwhile.
type Repository struct {
	dir   string
	dirs  []*objectDir // where objects are looked for, in this order
	own   []*objectDir // those of dirs that Close closes
	trees *treeCache   // shared with the repositories made by WithObjects
}

// Open returns the bare repository in dir. It fails with schema.ErrNotFound
// when there is none.
func Open(dir string) (*Repository, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%s holds no bare Git repository: %w", dir, schema.ErrNotFound)
			}
			return nil, err
		}
	}
	objects := &objectDir{dir: filepath.Join(dir, "objects")}
	return &Repository{
		dir:   dir,
		dirs:  []*objectDir{objects},
		own:   []*objectDir{objects},
		trees: newTreeCache(),
	}, nil
}

// WithObjects returns a view of the repository that also sees the objects in
// dir: the quarantine of a push that is not accepted yet. Close it when done;
// the repository itself stays open.
func (r *Repository) WithObjects(dir string) *Repository {
	objects := &objectDir{dir: dir}
	return &Repository{
		dir:   r.dir,
		dirs:  append([]*objectDir{objects}, r.dirs...),
		own:   []*objectDir{objects},
		trees: r.trees,
	}
}

// Close closes the files that are open. Commits of the repository can still be
// read: what is needed is opened again.
func (r *Repository) Close() error {
	for _, d := range r.own {
		d.close()
	}
	return nil
}

// Head returns the full hash of the commit that the branch points at. It fails
// with schema.ErrNotFound when there is no such branch.
func (r *Repository) Head(branch string) (string, error) {
	name := plumbing.NewBranchReferenceName(branch)
	if err := name.Validate(); err != nil {
		return "", fmt.Errorf("branch %q: %w: %w", branch, err, schema.ErrRefused)
	}
	// Git writes packed-refs before it removes a loose file: look in this order.
	raw, err := os.ReadFile(filepath.Join(r.dir, filepath.FromSlash(name.String())))
	if err == nil {
		id := strings.TrimSpace(string(raw))
		if !plumbing.IsHash(id) {
			return "", fmt.Errorf("branch %q: the reference holds no hash", branch)
		}
		return id, nil
	}
	if info, statErr := os.Stat(filepath.Join(r.dir, filepath.FromSlash(name.String()))); !errors.Is(err, fs.ErrNotExist) && (statErr != nil || !info.IsDir()) {
		return "", fmt.Errorf("branch %q: %w", branch, err)
	}
	return r.packedHead(name.String())
}

// packedHead looks for the reference in the packed-refs file.
func (r *Repository) packedHead(name string) (string, error) {
	f, err := os.Open(filepath.Join(r.dir, "packed-refs"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no %s: %w", name, schema.ErrNotFound)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if id, found := strings.CutSuffix(lines.Text(), " "+name); found && plumbing.IsHash(id) {
			return id, nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("packed-refs: %w", err)
	}
	return "", fmt.Errorf("no %s: %w", name, schema.ErrNotFound)
}

// Commit reads the commit with the full hash id, and lists the files below
// path ("" for the whole tree). It fails with schema.ErrNotFound when the
// repository has no such commit, and with a *schema.Refusal when id is no
// commit, when it has no directory at path, or when the tree holds what no tree
// should; in the last two cases the commit, without its Tree, comes with it.
func (r *Repository) Commit(ctx context.Context, id, path string) (schema.Commit, error) {
	if !plumbing.IsHash(id) || len(id) != 40 {
		return schema.Commit{}, fmt.Errorf("%q is no full SHA-1 hash of a commit: %w", id, schema.ErrRefused)
	}
	path, err := cleanPath(path)
	if err != nil {
		return schema.Commit{}, err
	}
	raw, err := r.readKind(plumbing.NewHash(id), plumbing.CommitObject, maxCommitBytes)
	if err != nil {
		return schema.Commit{}, fmt.Errorf("commit %s: %w", id, err)
	}
	c, err := decodeCommit(raw)
	if err != nil {
		return schema.Commit{}, refuse("commit %s cannot be read: %v", id, err)
	}
	subject, _, _ := strings.Cut(strings.TrimLeft(c.Message, "\n"), "\n")
	commit := schema.Commit{
		ID:      id,
		Author:  c.Author.Name,
		Email:   c.Author.Email,
		When:    c.Author.When,
		Subject: subject[:min(len(subject), maxSubjectBytes)],
	}
	files, err := r.list(ctx, c.TreeHash, path)
	if errors.Is(err, schema.ErrRefused) {
		return commit, err
	}
	if err != nil {
		return schema.Commit{}, err
	}
	commit.Tree = &tree{repository: r, files: files}
	return commit, nil
}

func decodeCommit(raw []byte) (*object.Commit, error) {
	var encoded plumbing.MemoryObject
	encoded.SetType(plumbing.CommitObject)
	if _, err := encoded.Write(raw); err != nil {
		return nil, err
	}
	c := new(object.Commit)
	return c, c.Decode(&encoded)
}

// cleanPath returns the deployed path without slashes around it.
func cleanPath(path string) (string, error) {
	path = strings.Trim(path, "/")
	if path == "" || path == "." {
		return "", nil
	}
	for _, name := range strings.Split(path, "/") {
		if problem := badName([]byte(name)); problem != "" {
			return "", refuse("the deployed path %q has a part that %s", path, problem)
		}
	}
	return path, nil
}

// readKind reads the object h, which must be of the given kind.
func (r *Repository) readKind(h plumbing.Hash, want plumbing.ObjectType, limit int64) ([]byte, error) {
	var kind plumbing.ObjectType
	var content []byte
	err := r.look(h, func(d *objectDir) (err error) {
		kind, content, err = d.read(h, limit)
		return err
	})
	if err == nil && kind != want {
		return nil, refuse("object %s is a %s, not a %s", h, kind, want)
	}
	return content, err
}

// size returns the size of the object h in bytes.
func (r *Repository) size(h plumbing.Hash) (int64, error) {
	var size int64
	err := r.look(h, func(d *objectDir) (err error) {
		size, err = d.size(h)
		return err
	})
	return size, err
}

// look tries the directories in order, and once more after a refresh: objects
// arrive in new packs, and move into others, at any time.
func (r *Repository) look(h plumbing.Hash, try func(*objectDir) error) error {
	for attempt := 0; ; attempt++ {
		for _, d := range r.dirs {
			if err := try(d); !errors.Is(err, plumbing.ErrObjectNotFound) {
				return err
			}
		}
		if attempt == 1 {
			return fmt.Errorf("object %s: %w", h, schema.ErrNotFound)
		}
		for _, d := range r.dirs {
			if err := d.refresh(); err != nil {
				return err
			}
		}
	}
}

// refuse is a Refusal with one fault, which is the whole commit's.
func refuse(format string, args ...any) error {
	return &schema.Refusal{Faults: []schema.Fault{{Problem: fmt.Sprintf(format, args...)}}}
}
