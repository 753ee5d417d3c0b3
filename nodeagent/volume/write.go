package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// Names in a volume that are ours.
const (
	dataLink    = "..data"     // leads to the directory that holds the files now
	newDataLink = "..data_new" // becomes dataLink by a rename
	ourPrefix   = ".."
)

// writeFiles makes the volume hold exactly the files:
//
//	..2026_11_21_12_00_00.123456789/app.properties   the files of one moment
//	..data          -> ..2026_11_21_12_00_00.123456789
//	app.properties  -> ..data/app.properties
//
// Turning ..data changes all files at once. It may be cut off anywhere and
// called again.
func writeFiles(dir string, want files, group *int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open its directory: %w", err)
	}
	defer root.Close()
	w := writer{root: root, group: group}
	current, err := root.Readlink(dataLink)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read which files it holds: %w", err)
	}
	same := err == nil && w.holds(current, want)
	if !same {
		if current, err = w.turn(want); err != nil {
			return fmt.Errorf("write its files: %w", err)
		}
	}
	if err := w.linkNames(want); err != nil {
		return fmt.Errorf("write its files: %w", err)
	}
	if err := w.clear(current, want); err != nil {
		return fmt.Errorf("remove its old files: %w", err)
	}
	return ownDir(dir, 0o755, group)
}

// holdsFiles says whether writeFiles came to make the volume's files, and they
// are there still: those in memory go with the machine.
func holdsFiles(dir string) bool {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	info, err := root.Stat(dataLink)
	return err == nil && info.IsDir()
}

// A writer writes into one volume. What is below its root is resolved there:
// nothing leads out.
type writer struct {
	root  *os.Root
	group *int64
}

// turn writes the files into a new directory and makes it the one that counts.
// Where there is no room for them it leaves none less than before.
func (w writer) turn(want files) (_ string, err error) {
	name := ourPrefix + time.Now().UTC().Format("2006_01_02_15_04_05.000000000")
	defer func() {
		if err != nil {
			err = errors.Join(err, w.root.RemoveAll(name))
		}
	}()
	if err := w.mkdir(name); err != nil {
		return "", err
	}
	for at, f := range want {
		if err := w.write(path.Join(name, at), f); err != nil {
			return "", err
		}
	}
	if err := w.root.Remove(newDataLink); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := w.root.Symlink(name, newDataLink); err != nil {
		return "", err
	}
	if err := w.root.Rename(newDataLink, dataLink); err != nil {
		return "", err
	}
	return name, nil
}

func (w writer) write(at string, f file) error {
	if err := w.mkdirs(path.Dir(at)); err != nil {
		return err
	}
	out, err := w.root.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(f.data)
	if w.group != nil || f.user != 0 {
		err = errors.Join(err, out.Chown(int(f.user), w.gid()))
	}
	return errors.Join(err, out.Chmod(w.mode(f)), out.Close())
}

// gid is the group of the files.
func (w writer) gid() int {
	if w.group == nil {
		return 0
	}
	return int(*w.group)
}

// mode lets the group read, when there is one.
func (w writer) mode(f file) fs.FileMode {
	mode := fs.FileMode(f.mode)
	if w.group != nil {
		mode |= 0o440
	}
	return mode
}

func (w writer) mkdirs(dir string) error {
	if info, err := w.root.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := w.mkdirs(path.Dir(dir)); err != nil {
		return err
	}
	return w.mkdir(dir)
}

func (w writer) mkdir(dir string) error {
	if err := w.root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o755)
	if w.group != nil {
		if err := w.root.Chown(dir, 0, int(*w.group)); err != nil {
			return err
		}
		mode |= fs.ModeSetgid
	}
	return w.root.Chmod(dir, mode)
}

// holds says whether a directory holds exactly the files. It reads them all:
// after a power cut a file may be there and empty.
func (w writer) holds(dir string, want files) bool {
	if path.Base(dir) != dir {
		return false
	}
	found := 0
	err := fs.WalkDir(w.root.FS(), dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		f, ok := want[strings.TrimPrefix(at, dir+"/")]
		if !ok || !e.Type().IsRegular() {
			return fs.ErrInvalid
		}
		found++
		return w.sameFile(at, f)
	})
	return err == nil && found == len(want)
}

func (w writer) sameFile(at string, f file) error {
	info, err := w.root.Lstat(at)
	if err != nil {
		return err
	}
	if info.Mode().Perm() != w.mode(f) || info.Size() != int64(len(f.data)) {
		return fs.ErrInvalid
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || w.group != nil && int64(stat.Gid) != *w.group || int64(stat.Uid) != f.user {
		return fs.ErrInvalid
	}
	data, err := w.root.ReadFile(at)
	if err == nil && !bytes.Equal(data, f.data) {
		err = fs.ErrInvalid
	}
	return err
}

// linkNames makes the names that containers read: first names of the paths.
func (w writer) linkNames(want files) error {
	for name := range firstNames(want) {
		target := path.Join(dataLink, name)
		if got, err := w.root.Readlink(name); err == nil && got == target {
			continue
		}
		if err := w.root.RemoveAll(name); err != nil {
			return err
		}
		if err := w.root.Symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}

// clear removes names and directories that do not count any more.
func (w writer) clear(current string, want files) error {
	d, err := w.root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	wanted := firstNames(want)
	for _, name := range names {
		if name == current || name == dataLink || wanted[name] {
			continue
		}
		if err := w.root.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

func firstNames(f files) map[string]bool {
	names := map[string]bool{}
	for at := range f {
		first, _, _ := strings.Cut(at, "/")
		names[first] = true
	}
	return names
}
