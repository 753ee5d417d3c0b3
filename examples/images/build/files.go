package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A tree is the files of one layer, by path without a leading slash.
type tree map[string]entry

// An entry is one file, link or directory; all belong to root.
type entry struct {
	mode int64 // permission bits
	data []byte
	link string // target of a symbolic link; data is not used then
	dir  bool
}

func (t tree) file(name string, mode int64, data []byte) { t[name] = entry{mode: mode, data: data} }
func (t tree) text(name, data string)                    { t.file(name, 0o644, []byte(data)) }
func (t tree) script(name, data string)                  { t.file(name, 0o755, []byte(data)) }
func (t tree) symlink(name, target string)               { t[name] = entry{mode: 0o777, link: target} }
func (t tree) folder(name string, mode int64)            { t[name] = entry{mode: mode, dir: true} }

// pack writes the tree as a compressed tar, in an order and with times that
// depend on nothing else, so that equal trees make equal layers.
func (t tree) pack() ([]byte, error) {
	all := t.withParents()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	for _, name := range sortedKeys(all) {
		e := all[name]
		h := &tar.Header{Name: name, Mode: e.mode, Typeflag: tar.TypeReg, Size: int64(len(e.data)), Format: tar.FormatPAX}
		switch {
		case e.dir:
			h.Name, h.Typeflag = name+"/", tar.TypeDir
		case e.link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, e.link, 0
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("write %s into a layer: %w", name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(e.data); err != nil {
				return nil, fmt.Errorf("write %s into a layer: %w", name, err)
			}
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, fmt.Errorf("finish a layer: %w", err)
	}
	return b.Bytes(), nil
}

// withParents adds the directories that the entries lie in.
func (t tree) withParents() tree {
	all := make(tree, len(t))
	for name, e := range t {
		all[name] = e
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, there := t[dir]; !there {
				all[dir] = entry{mode: 0o755, dir: true}
			}
		}
	}
	return all
}

// layer is the layer that pack wrote.
func layer(packed []byte) (v1.Layer, error) {
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil }
	l, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("make a layer: %w", err)
	}
	return l, nil
}

// sortedKeys lists a map's keys in order.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
