// Package diskuse says how much of a disk a directory takes, as du does, without
// taking a core for it and whatever is going on in the directory: containers may
// write, rename and remove below it at the same time, and mean no good. It
// follows no symbolic link, stays on one file system, and keeps no list of what
// it found.
package diskuse

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// rest is how long a walk rests for the time that it worked: it takes at most
	// a twentieth of a core.
	rest = 19
	// slice is how much it works before it rests.
	slice = 2 * time.Millisecond
	// lookEvery is after how many entries it looks at the clock.
	lookEvery = 64
	// deepest is how many directories are open at a time; what is below is not
	// counted, and said to be too deep.
	deepest = 512
	// linksMost is how many files with several names are remembered, so that
	// each counts once; of those beyond, every name counts.
	linksMost = 10_000
)

// ErrDeep says that there are directories deeper than is looked.
var ErrDeep = errors.New("directories are nested too deeply to be measured")

// Usage is what was found.
type Usage struct {
	Bytes  uint64 // on disk, not the length of files
	Inodes uint64
}

// Of measures a directory. One that is not there takes nothing. What comes or
// goes meanwhile may count or not. The error is ctx's, ErrDeep beside what was
// counted, or one of the disk.
func Of(ctx context.Context, dir string) (Usage, error) {
	w := walk{ctx: ctx, names: make([]byte, 16<<10), links: map[uint64]struct{}{}, began: time.Now()}
	fd, err := open(unix.AT_FDCWD, dir)
	if errors.Is(err, unix.ENOENT) {
		return Usage{}, nil
	}
	if err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w", dir, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return Usage{}, fmt.Errorf("measure %s: %w", dir, err)
	}
	w.device = st.Dev
	w.count(&st)
	err = w.directory(fd, 1)
	if err == nil && w.deep {
		err = ErrDeep
	}
	if err != nil {
		return w.Usage, fmt.Errorf("measure %s: %w", dir, err)
	}
	return w.Usage, nil
}

func open(at int, name string) (int, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

type walk struct {
	Usage
	ctx    context.Context
	device uint64
	names  []byte // directory entries as the kernel gives them
	links  map[uint64]struct{}
	seen   int
	began  time.Time // to work, since the last rest
	deep   bool
}

// directory counts what is in an open directory, and closes it.
func (w *walk) directory(fd, depth int) error {
	defer unix.Close(fd)
	for {
		n, err := unix.Getdents(fd, w.names)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ENOENT) { // it was removed
			return nil
		}
		if err != nil || n == 0 {
			return err
		}
		_, _, names := unix.ParseDirent(w.names[:n], -1, nil)
		for _, name := range names {
			if err := w.entry(fd, name, depth); err != nil {
				return err
			}
		}
	}
}

func (w *walk) entry(at int, name string, depth int) error {
	if err := w.pace(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return gone(err)
	}
	if st.Dev != w.device {
		return nil
	}
	w.count(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if depth >= deepest {
		w.deep = true
		return nil
	}
	fd, err := open(at, name)
	if err != nil {
		return gone(err)
	}
	return w.directory(fd, depth+1)
}

// gone passes over what has been removed, or has become something else.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

func (w *walk) count(st *unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, counted := w.links[st.Ino]; counted {
			return
		}
		if len(w.links) < linksMost {
			w.links[st.Ino] = struct{}{}
		}
	}
	w.Bytes += uint64(max(0, st.Blocks)) * 512
	w.Inodes++
}

// pace rests when it has worked for a slice.
func (w *walk) pace() error {
	if w.seen++; w.seen%lookEvery != 0 {
		return nil
	}
	worked := time.Since(w.began)
	if worked < slice {
		return w.ctx.Err()
	}
	t := time.NewTimer(min(rest*worked, time.Second))
	defer t.Stop()
	select {
	case <-w.ctx.Done():
		return w.ctx.Err()
	case <-t.C:
	}
	w.began = time.Now()
	return nil
}
