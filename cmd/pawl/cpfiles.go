package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/pawl-project/pawl/schema/archive"
)

// A packer packs files of this machine.
type packer struct {
	archive.Writer
	warn func(string)
}

// pack packs a file, or a directory with all that is below it.
func (p *packer) pack(ctx context.Context, from string) error {
	// A link that is named is meant to be followed, others are not.
	from, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		entry, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return p.add(name, filepath.ToSlash(entry), info)
	})
}

func (p *packer) add(name, entry string, info fs.FileInfo) error {
	target := ""
	switch info.Mode().Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		var err error
		if target, err = os.Readlink(name); err != nil {
			return err
		}
	default:
		if entry == archive.Self {
			return fmt.Errorf("%s is neither a file nor a directory", name)
		}
		p.warn(name + " is left out: neither a file, a directory nor a link")
		return nil
	}
	h, err := archive.Header(info, target)
	if err != nil {
		return err
	}
	h.Name = entry
	if !info.Mode().IsRegular() {
		return p.WriteHeader(h)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(p.Writer, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s became shorter while it was copied", name)
	}
	return err
}

// unpack writes a tar to a path of this machine. A file goes into a directory
// that is there, or whose name ends with a slash, under the name it had; a directory's entries go where the path
// says. Nothing is written outside of that, whatever the tar says and whatever
// links it brought.
func unpack(from io.Reader, to, base string, noModes bool, warn func(string)) error {
	r := archive.NewReader(from, warn)
	h, err := r.Next()
	if errors.Is(err, io.EOF) {
		return errors.New("the server sent nothing")
	}
	if err != nil {
		return err
	}
	dir := to
	if h.Typeflag != tar.TypeDir {
		if info, err := os.Stat(to); err == nil && info.IsDir() || os.IsPathSeparator(to[len(to)-1]) {
			to = filepath.Join(to, base)
		}
		dir = filepath.Dir(to)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{root: root, warn: warn, noModes: noModes}
	if h.Typeflag != tar.TypeDir {
		h.Name = filepath.Base(to)
		return u.file(h, r)
	}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = u.put(h, r)
		}
		if err != nil {
			return printed{err}
		}
	}
}

// A printed error may hold names of a container's files.
type printed struct{ error }

// Error is what a terminal can be told.
func (e printed) Error() string { return archive.Printable(e.error.Error()) }

// Unwrap is the error itself.
func (e printed) Unwrap() error { return e.error }

// An unpacker writes below one directory, which the kernel's look-ups do not leave.
type unpacker struct {
	root    *os.Root
	warn    func(string)
	noModes bool
}

func (u *unpacker) put(h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return u.root.MkdirAll(h.Name, 0o755)
	case tar.TypeSymlink:
		if !archive.Inside(h.Name, h.Linkname) {
			u.warn(fmt.Sprintf("%q is left out: a link to %q, out of the directory that is copied", h.Name, h.Linkname))
			return nil
		}
		if err := u.place(h.Name); err != nil {
			return err
		}
		if !u.straight(path.Dir(h.Name)) { // then its target would be seen from elsewhere
			u.warn(fmt.Sprintf("%q is left out: a link where a link leads", h.Name))
			return nil
		}
		return u.root.Symlink(h.Linkname, h.Name)
	}
	return u.file(h, content)
}

// straight says whether no part of a directory's name is a link.
func (u *unpacker) straight(dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		if info, err := u.root.Lstat(dir); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// place makes room for an entry.
func (u *unpacker) place(name string) error {
	if dir := path.Dir(name); dir != "." {
		if err := u.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() || info.Mode()&fs.ModeSymlink != 0 {
		return u.root.Remove(name)
	}
	return fmt.Errorf("%s is there already, and no file", name)
}

func (u *unpacker) file(h *tar.Header, content io.Reader) error {
	if err := u.place(h.Name); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if !u.noModes {
		mode = fs.FileMode(h.Mode) & 0o777
	}
	f, err := u.root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}
