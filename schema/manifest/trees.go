package manifest

import (
	"crypto/sha1" //nolint:gosec // Git's name of a blob, not a seal
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/pawl-project/pawl/schema"
)

// MemTree is a tree of files in memory, path → content.
func MemTree(files map[string]string) schema.Tree {
	t := &memTree{content: make(map[string]string, len(files))}
	for path, content := range files {
		t.content[path] = content
		t.files = append(t.files, schema.TreeFile{Path: path, Blob: blobHash([]byte(content)), Size: int64(len(content))})
	}
	sort.Slice(t.files, func(i, j int) bool { return t.files[i].Path < t.files[j].Path })
	return t
}

type memTree struct {
	files   []schema.TreeFile
	content map[string]string
}

func (t *memTree) Files() []schema.TreeFile { return t.files }

func (t *memTree) Read(f schema.TreeFile, limit int64) ([]byte, error) {
	content, ok := t.content[f.Path]
	if !ok {
		return nil, fmt.Errorf("%s: %w", f.Path, schema.ErrNotFound)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s: %d bytes, the limit is %d: %w", f.Path, len(content), limit, schema.ErrRefused)
	}
	return []byte(content), nil
}

// DirTree lists a working tree on disk, or one file. What begins with a dot is
// left out, .git first of all. Nothing is read before Read; a file's Blob is its
// path, size and time of change, which stands for its content only while nobody
// tampers with times.
func DirTree(root string) (schema.Tree, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("open manifests: %w", err)
	}
	if !info.IsDir() {
		t := &dirTree{root: filepath.Dir(root)}
		t.files = []schema.TreeFile{diskFile(filepath.Base(root), info)}
		return t, nil
	}
	t := &dirTree{root: root}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == root {
			return nil
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.Type()&^fs.ModeSymlink != 0 {
			return nil // a socket or device; Git does not track them
		}
		t.files = append(t.files, diskFile(filepath.ToSlash(rel), info))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	sort.Slice(t.files, func(i, j int) bool { return t.files[i].Path < t.files[j].Path })
	return t, nil
}

func diskFile(path string, info fs.FileInfo) schema.TreeFile {
	f := schema.TreeFile{Path: path, Size: info.Size(), Blob: fmt.Sprintf("%s:%d:%d", path, info.Size(), info.ModTime().UnixNano())}
	if info.Mode()&fs.ModeSymlink != 0 {
		f.Mode = schema.ModeSymlink
	}
	return f
}

type dirTree struct {
	root  string
	files []schema.TreeFile
}

func (t *dirTree) Files() []schema.TreeFile { return t.files }

func (t *dirTree) Read(f schema.TreeFile, limit int64) ([]byte, error) {
	file, err := os.Open(filepath.Join(t.root, filepath.FromSlash(f.Path)))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", f.Path, err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes: %w", f.Path, limit, schema.ErrRefused)
	}
	return content, nil
}

// blobHash is Git's name of a content.
func blobHash(content []byte) string {
	h := sha1.New() //nolint:gosec // as Git does
	fmt.Fprintf(h, "blob %d\x00", len(content))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}
