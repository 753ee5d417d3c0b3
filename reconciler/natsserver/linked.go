package natsserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A nats-server (2.15) that cannot open a stream's files while it starts removes
// them, whatever they hold: an empty block whose key was not written yet, as a
// kill leaves it, is enough. So while it starts every file of a stream has a
// second name here, and what the server removed is put back.

// linkedDir holds the second names, in folders as those of the streams. It is
// whole: it is filled under another name. It is there only while the server
// starts, and when it was killed then.
const linkedDir = "opening"

const blockSuffix = ".blk"

func linkedPath(dir string) string { return filepath.Join(dir, linkedDir) }

// link gives the files of all streams a second name. What was being removed by
// the server itself is left out.
func link(dir, control string) error {
	streams, err := folders(streamsDir(dir, control))
	if err != nil {
		return err
	}
	making := linkedPath(dir) + ".tmp"
	if err := errors.Join(os.RemoveAll(making), unlink(dir)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, name := range streams {
		if strings.HasPrefix(name, ".") {
			continue
		}
		if err := linkTree(filepath.Join(streamsDir(dir, control), name), filepath.Join(making, name)); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	if err := os.MkdirAll(making, 0o700); err != nil { // there may be no stream
		return fmt.Errorf("store: %w", err)
	}
	if err := os.Rename(making, linkedPath(dir)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, below), 0o700)
		}
		return os.Link(path, filepath.Join(to, below))
	})
}

// putBack brings back the streams that are not whole any more, as they were when
// they were linked, and takes the second names away. No server runs.
func putBack(dir, control string) error {
	linked, err := folders(linkedPath(dir))
	if err != nil {
		return err
	}
	for _, name := range linked {
		from, to := filepath.Join(linkedPath(dir), name), filepath.Join(streamsDir(dir, control), name)
		whole, err := holds(to, from)
		if err == nil && !whole {
			err = errors.Join(os.RemoveAll(to), os.MkdirAll(filepath.Dir(to), 0o700))
			if err == nil {
				err = os.Rename(from, to)
			}
		}
		if err != nil {
			return fmt.Errorf("store: put stream %s back: %w", name, err)
		}
	}
	return unlink(dir)
}

// holds says whether stream has the settings and all blocks that linked has. The
// rest the server replaces and removes as it likes.
func holds(stream, linked string) (bool, error) {
	files, err := blocks(linked)
	if err != nil {
		return false, err
	}
	for _, name := range []string{"meta.inf", "meta.sum", "meta.key"} {
		switch had, err := exists(filepath.Join(linked, name)); {
		case err != nil:
			return false, err
		case had:
			files = append(files, name)
		}
	}
	for _, name := range files {
		if has, err := exists(filepath.Join(stream, name)); err != nil || !has {
			return false, err
		}
	}
	return true, nil
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// blocks lists the files with a stream's messages, by their names below it.
func blocks(stream string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(stream, "msgs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), blockSuffix) {
			names = append(names, filepath.Join("msgs", e.Name()))
		}
	}
	return names, nil
}

// unlink takes the second names away.
func unlink(dir string) error {
	if err := os.RemoveAll(linkedPath(dir)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// dropUnfinishedBlocks removes the blocks that the server had begun when it was
// killed: such a block is empty and has no key yet. One that has something and no
// key cannot be read any more.
func dropUnfinishedBlocks(dir, control string) error {
	streams, err := folders(streamsDir(dir, control))
	if err != nil {
		return err
	}
	for _, name := range streams {
		stream := filepath.Join(streamsDir(dir, control), name)
		files, err := blocks(stream)
		if err != nil {
			return err
		}
		for _, file := range files {
			switch size, err := withoutKey(filepath.Join(stream, file)); {
			case err != nil:
				return fmt.Errorf("store: %w", err)
			case size > 0:
				return damaged(dir, name, fmt.Sprintf("%s has no key", file))
			case size == 0:
				if err := os.Remove(filepath.Join(stream, file)); err != nil {
					return fmt.Errorf("store: %w", err)
				}
			}
		}
	}
	return nil
}

// withoutKey is the size of a block that has no key, in bytes; -1: it has one.
func withoutKey(block string) (int64, error) {
	key, err := exists(strings.TrimSuffix(block, blockSuffix) + ".key")
	if err != nil || key {
		return -1, err
	}
	info, err := os.Stat(block)
	if err != nil {
		return -1, err
	}
	return info.Size(), nil
}
