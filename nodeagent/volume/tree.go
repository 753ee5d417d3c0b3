package volume

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how many directories are open at once. What lies deeper is
// first moved up, because a container can nest directories without end.
const maxDepth = 100

// maxRounds bounds how often a directory is read again because something was
// left in it: what writes there is gone by then.
const maxRounds = 1000

// removeTree deletes a directory without following links or entering mounts. It
// fails with EXDEV or EBUSY at a mount.
func removeTree(ctx context.Context, dir string) error {
	parent, err := unix.Open(filepath.Dir(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(dir), Err: err}
	}
	defer unix.Close(parent)
	r := remover{ctx: ctx, top: -1}
	return r.remove(parent, filepath.Base(dir), dir, 0)
}

type remover struct {
	ctx   context.Context
	top   int // the directory that is removed; -1 until it is open
	moved int // how many deep directories were moved up to it
}

// remove deletes one name in an open directory. full is for messages.
func (r *remover) remove(parent int, name, full string, depth int) error {
	err := unix.Unlinkat(parent, name, 0)
	if errors.Is(err, unix.EPERM) && r.release(parent, name) {
		err = unix.Unlinkat(parent, name, 0)
	}
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return &os.PathError{Op: "unlink", Path: full, Err: err}
	}
	if depth > maxDepth {
		return r.moveUp(parent, name, full)
	}
	for range maxRounds {
		if err := r.empty(parent, name, full, depth); err != nil {
			return err
		}
		err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.ENOTEMPTY):
			return &os.PathError{Op: "rmdir", Path: full, Err: err}
		}
	}
	return &os.PathError{Op: "rmdir", Path: full, Err: unix.ENOTEMPTY}
}

// moveUp puts a directory into the top one, which is read again. A removal that was
// cut off may have left some there.
func (r *remover) moveUp(parent int, name, full string) error {
	for {
		r.moved++
		err := unix.Renameat(parent, name, r.top, "..deep"+strconv.Itoa(r.moved))
		switch {
		case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		case err != nil:
			return &os.PathError{Op: "rename", Path: full, Err: err}
		default:
			return nil
		}
	}
}

// empty deletes what is in a directory.
func (r *remover) empty(parent int, name, full string, depth int) error {
	fd, err := unix.Openat2(parent, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: full, Err: err}
	}
	d := os.NewFile(uintptr(fd), full)
	defer d.Close()
	if depth == 0 {
		r.top = fd
	}
	for {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		names, err := d.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := r.remove(fd, n, path.Join(full, n), depth+1); err != nil {
				return err
			}
		}
	}
}
