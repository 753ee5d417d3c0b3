package access

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

// readPrivate reads a regular file of at most most bytes that nobody but its
// owner can read or write, and whose owner is this process' user or root.
func readPrivate(file string, most int64) ([]byte, error) {
	// Not blocking: a pipe in its place would hold the reader for ever.
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: file, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s is not a regular file: %w", file, schema.ErrRefused)
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %04o, so that others may have read or changed it: remove it to have a new one made, or chmod 600 it: %w", file, st.Mode&0o777, schema.ErrRefused)
	case int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return nil, fmt.Errorf("%s belongs to user %d and not to the one that runs this: %w", file, st.Uid, schema.ErrRefused)
	case st.Size > most:
		return nil, fmt.Errorf("%s has %d bytes, want %d or less: %w", file, st.Size, most, schema.ErrRefused)
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// passing says whether an error says nothing of a file: that it could not be
// opened or read this time, as when the process has too many files open.
func passing(err error) bool {
	var of *fs.PathError
	return errors.As(err, &of) && !errors.Is(err, fs.ErrNotExist)
}

// writePrivate puts a file in place that only its owner reads: whole or not at
// all, and on disk when it returns, so that a crash of the machine cannot take
// back a token that was handed out or bring back one that was revoked.
func writePrivate(file string, content []byte) error { return writeDurably(file, content, 0o600) }

func writeDurably(file string, content []byte, mode os.FileMode) error {
	dir := filepath.Dir(file)
	aside, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(aside.Name())
	_, err = aside.Write(content)
	err = errors.Join(err, aside.Chmod(mode), aside.Sync(), aside.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(aside.Name(), file); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
