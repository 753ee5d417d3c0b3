package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema/archive"
)

// A scripted tar: one entry a line, after that of the directory itself.
//
//	d NAME           a directory
//	f NAME           a file, which says its name
//	l NAME TARGET    a link
func scripted(t testing.TB, script string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := archive.NewWriter(&b)
	put := func(h *tar.Header, content string) {
		h.Mode, h.Size, h.Format = 0o640, int64(len(content)), tar.FormatPAX
		if err := w.WriteHeader(h); err != nil {
			return // tar itself knows no such name
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	put(&tar.Header{Typeflag: tar.TypeDir, Name: "."}, "")
	for line := range strings.Lines(script) {
		words := append(strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3), "", "")
		switch name, target := words[1], words[2]; words[0] {
		case "d":
			put(&tar.Header{Typeflag: tar.TypeDir, Name: name}, "")
		case "f":
			put(&tar.Header{Typeflag: tar.TypeReg, Name: name}, name)
		case "l":
			put(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}, "")
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpacked unpacks into a directory beside another one, and says what there is then.
func unpacked(t testing.TB, base string, text []byte) (warnings []string, err error) {
	t.Helper()
	for name, content := range map[string]string{"secret": "untouched", "beside/secret": "untouched", "tree/old": "old"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(base, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return warnings, unpack(bytes.NewReader(text), filepath.Join(base, "tree"), "x", false, func(s string) { warnings = append(warnings, s) })
}

// unharmed checks that what is beside the tree is as it was, and that no link in
// the tree leads out of it.
func unharmed(t *testing.T, base string) {
	t.Helper()
	var all []string
	if err := filepath.WalkDir(base, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(base, name)
		if !strings.HasPrefix(rest, "tree/") {
			all = append(all, rest)
		} else if d.Type() == fs.ModeSymlink && leads(t, filepath.Join(base, "tree"), rest[5:]) {
			target, _ := os.Readlink(name)
			t.Errorf("%q leads out, to %q", rest, target)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(all, " "); got != ". beside beside/secret secret tree" {
		t.Errorf("beside the tree there is %q", got)
	}
	for _, name := range []string{"secret", "beside/secret"} {
		if text, err := os.ReadFile(filepath.Join(base, name)); string(text) != "untouched" {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
	}
}

// leads says whether a name, as the kernel goes along it, leaves the tree.
func leads(t *testing.T, tree, name string) bool {
	t.Helper()
	dir, err := unix.Open(tree, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_BENEATH})
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.EXDEV)
}

// A container's files are a stranger's: none of them, and no link, gets out of
// the directory that they are copied to.
func TestUnpackHostile(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		warns  int
		there  string // a file that is there in the end
	}{
		"plain":                         {"d a\nf a/b\nl a/l b\nf c", 0, "a/b"},
		"links out":                     {"l abs /etc\nl up ..\nd d\nl d/up ../..\nf last", 3, "last"},
		"through a link":                {"d a\nl b a\nf b/c", 0, "a/c"},
		"through a link out":            {"l b ..\nf b/secret", 1, "b/secret"},
		"link in place of a link":       {"d a\nl a/l ../x\nl a/l ../../x\nf last", 1, "last"},
		"file in place of a link":       {"l l old\nf l", 0, "l"},
		"link below a link":             {"d p\nd p/q\nl p/q/r ../..\nl p/q/r/l ../../secret\nf last", 1, "last"},
		"links that are . in a row":     {"l y .\nl z .\nl x y/z/../../secret\nf last", 1, "last"},
		"a name with lines and escapes": {"f \x1b]0;x\x07", 0, "\x1b]0;x\x07"},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			warnings, err := unpacked(t, base, scripted(t, c.script))
			if err != nil || len(warnings) != c.warns {
				t.Errorf("%q, %v", warnings, err)
			}
			unharmed(t, base)
			if _, err := os.Lstat(filepath.Join(base, "tree", c.there)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Where a copy ends: what was there that is no file is not replaced, and no
// terminal obeys a name.
func TestUnpackRefused(t *testing.T) {
	for script, want := range map[string]string{
		"f a\nf a/b":           "file exists",
		"d a\nf a":             "a is there already, and no file",
		"d \x1b[2J\nf \x1b[2J": "?[2J is there already, and no file",
		"f a\nd a":             "a",
		"f /etc/x":             "leads out of the tree",
	} {
		base := t.TempDir()
		_, err := unpacked(t, base, scripted(t, script))
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\x1b") {
			t.Errorf("%q: %v, want %s", script, err, want)
		}
		unharmed(t, base)
	}
}

// A tree that is packed and unpacked is the same: modes of files, links, and what
// files hold. setuid does not come back.
func TestPackAndUnpack(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "new", "tree")
	for name, mode := range map[string]fs.FileMode{"a": 0o644, "d/b": 0o600, "d/e/run me": 0o755, "d/line\nbreak": 0o400, "d/\xff": 0o640, "s": 0o755 | fs.ModeSetuid} {
		if err := os.MkdirAll(filepath.Join(from, path.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(from, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("d/b", filepath.Join(from, "l")), os.Symlink("nowhere", filepath.Join(from, "d", "l")), unix.Mkfifo(filepath.Join(from, "pipe"), 0o600), os.Mkdir(filepath.Join(from, "empty"), 0o700)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	var warned []string
	p := &packer{Writer: archive.NewWriter(&b), warn: func(s string) { warned = append(warned, s) }}
	if err := errors.Join(p.pack(context.Background(), from), p.Close()); err != nil {
		t.Fatal(err)
	}
	if len(warned) != 1 || !strings.Contains(warned[0], "pipe") {
		t.Errorf("%q", warned)
	}
	if err := unpack(&b, to, "x", false, func(s string) { t.Error(s) }); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := filepath.WalkDir(to, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, _ := filepath.Rel(to, name)
		info, err := d.Info()
		if err != nil {
			return err
		}
		target, _ := os.Readlink(name)
		text, _ := os.ReadFile(name)
		if !d.IsDir() {
			got[rest] = fmt.Sprint(info.Mode(), " ", target, " ", string(text))
		} else {
			got[rest] = "dir"
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		".": "dir", "d": "dir", "d/e": "dir", "empty": "dir", "a": "-rw-r--r--  a", "d/b": "-rw-------  d/b", "d/e/run me": "-rwxr-xr-x  d/e/run me",
		"d/line\nbreak": "-r--------  d/line\nbreak", "d/\xff": "-rw-r-----  d/\xff", "s": "-rwxr-xr-x  s", "l": "Lrwxrwxrwx d/b d/b", "d/l": "Lrwxrwxrwx nowhere ",
	} {
		if got[name] != want {
			t.Errorf("%q: %q, want %q", name, got[name], want)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("and %q", got)
	}
}

// A destination that ends with a slash is a directory, also when it is not there yet.
func TestUnpackAFileIntoANewDirectory(t *testing.T) {
	dir := t.TempDir()
	for to, want := range map[string]string{"new/": "new/hosts", "a/b/": "a/b/hosts", "named": "named", "c/named": "c/named"} {
		var b bytes.Buffer
		w := archive.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: archive.Self, Mode: 0o644, Size: 2}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("ok")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Close(), unpack(&b, dir+"/"+to, "hosts", false, func(s string) { t.Error(s) })); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, want)); string(text) != "ok" {
			t.Errorf("%s: %q, %v", to, text, err)
		}
	}
}

// Whatever a tar says, nothing leaves the directory it is unpacked into.
func FuzzUnpack(f *testing.F) {
	for _, script := range []string{
		"d a\nf a/b\nl a/l b", "l b ..\nf b/secret", "d p\nd p/q\nl p/q/r ../..\nl p/q/r/l ../../secret",
		"l y .\nl z .\nl x y/z/../../secret\nf x", "d a\nl b a\nl b/c ../x\nf b/c", "l a b\nl b a\nf a/x", "l old ..\nf old",
	} {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script string) {
		base, err := os.MkdirTemp("/dev/shm", "pawl-fuzz-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(base)
		if _, err := unpacked(t, base, scripted(t, script)); err != nil && err.Error() != archive.Printable(err.Error()) {
			t.Errorf("a terminal is told %q", err)
		}
		unharmed(t, base)
	})
}
