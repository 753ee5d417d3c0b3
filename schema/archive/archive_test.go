package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

func header(kind byte, name, target string) *tar.Header {
	return &tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o644, Format: tar.FormatPAX}
}

// packed is a tar of entries without content, after that of the directory itself.
func packed(t testing.TB, entries ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, h := range append([]*tar.Header{header(tar.TypeDir, ".", "")}, entries...) {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// last reads to the end, or to the first error.
func last(r *Reader) (names []string, err error) {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return names, err
		}
		names = append(names, h.Name)
	}
}

// What would lead out of the tree, or make what nobody may make, is refused by name.
func TestHostileEntries(t *testing.T) {
	for why, entry := range map[string]*tar.Header{
		`"/etc/passwd" leads out of the tree`:                header(tar.TypeReg, "/etc/passwd", ""),
		`"../x" leads out of the tree`:                       header(tar.TypeReg, "../x", ""),
		`".." leads out of the tree`:                         header(tar.TypeDir, "..", ""),
		`"a/../../x" leads out of the tree`:                  header(tar.TypeReg, "a/../../x", ""),
		`"//x" leads out of the tree`:                        header(tar.TypeDir, "//x", ""),
		`"." is out of place`:                                header(tar.TypeDir, ".", ""),
		`"a/.." is out of place`:                             header(tar.TypeReg, "a/..", ""),
		`"x" is a hard link`:                                 header(tar.TypeLink, "x", "/etc/passwd"),
		`"x" is a device or a pipe`:                          header(tar.TypeChar, "x", ""),
		`"y" is a device or a pipe`:                          header(tar.TypeBlock, "y", ""),
		`"z" is a device or a pipe`:                          header(tar.TypeFifo, "z", ""),
		`"x" is a link to nothing`:                           header(tar.TypeSymlink, "x", ""),
		`"\x1b[2J\n../\u009b" is a device or a pipe`:         header(tar.TypeChar, "\x1b[2J\n../\u009b", ""),
		`"` + strings.Repeat("a/", 100) + `" is a hard link`: header(tar.TypeLink, strings.Repeat("a/", 100), "x"),
		`"c" is of no known kind`:                            header(tar.TypeCont, "c", ""),
	} {
		_, err := last(NewReader(bytes.NewReader(packed(t, entry)), nil))
		if !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), "tar entry "+why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	for name, entry := range map[string]*tar.Header{
		"spaces and lines": header(tar.TypeReg, "a\nb c\td", ""),
		"dots":             header(tar.TypeReg, "...", ""),
		"dots below":       header(tar.TypeReg, "..a/..b", ""),
		"up and down":      header(tar.TypeReg, "a/../b", ""),
		"a link out":       header(tar.TypeSymlink, "l", "../../etc/passwd"), // its reader decides
	} {
		if names, err := last(NewReader(bytes.NewReader(packed(t, entry)), nil)); err != nil || len(names) != 2 || names[1] != path.Clean(entry.Name) {
			t.Errorf("%s: %q, %v", name, names, err)
		}
	}
}

// The first entry, and no other, is what was asked for.
func TestFirstEntry(t *testing.T) {
	for text, entry := range map[string]*tar.Header{
		"is out of place": header(tar.TypeReg, "x", ""),
		"is a link where": header(tar.TypeSymlink, ".", "x"),
		"is a hard link":  header(tar.TypeLink, ".", "x"),
	} {
		var b bytes.Buffer
		w := NewWriter(&b)
		if err := errors.Join(w.WriteHeader(entry), w.Close()); err != nil {
			t.Fatal(err)
		}
		if names, err := last(NewReader(&b, nil)); len(names) > 0 || !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q, %v; want %s", names, err, text)
		}
	}
}

// sparse is the header of a file of 1 TiB that stands for 512 bytes.
func sparse(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	content := append([]byte("0\n"), make([]byte, 510)...)
	h := header(tar.TypeReg, "GNUSparseFile.0/bomb", "")
	h.Size = int64(len(content))
	h.PAXRecords = map[string]string{"PAW.sparse.major": "1", "PAW.sparse.minor": "0", "PAW.sparse.name": "bomb", "PAW.sparse.realsize": "1099511627776"}
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// The Writer writes no sparse files; PAW is as long as GNU.
	return bytes.ReplaceAll(b.Bytes(), []byte(" PAW.sparse"), []byte(" GNU.sparse"))
}

// Few bytes stand for no file of any size, and headers of any size for no memory.
func TestBombs(t *testing.T) {
	directory := packed(t)[:512]
	if names, err := last(NewReader(bytes.NewReader(append(bytes.Clone(directory), sparse(t)...)), nil)); len(names) > 1 || !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), `"bomb" has holes`) {
		t.Errorf("a sparse file: %q, %v", names, err)
	}
	huge := header(tar.TypeReg, "huge", "")
	huge.Size = math.MaxInt64
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := errors.Join(w.WriteHeader(header(tar.TypeDir, ".", "")), w.WriteHeader(huge)); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&b, nil)
	for range 2 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := io.Copy(io.Discard, r); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("of a huge file %d bytes came: %v", n, err)
	}
	// A header for the next header that does not end.
	endless := header(tar.TypeReg, "x", "")
	endless.PAXRecords = map[string]string{"PAWL.x": strings.Repeat("x", 900<<10)}
	text := packed(t, endless)
	size := bytes.Index(text, []byte("PaxHeaders.0/x")) + 124
	copy(text[size:size+12], "77777777777\x00")
	sum := 0
	block := text[size-124 : size-124+512]
	copy(block[148:156], "        ")
	for _, c := range block {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
	read := &counted{Reader: io.MultiReader(bytes.NewReader(text), zeros{})}
	if _, err := last(NewReader(read, nil)); err == nil || read.n > 4<<20 {
		t.Errorf("a header of 8 GiB: %v after %d bytes", err, read.n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type counted struct {
	io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// What the packer has to say is heard, and obeyed by no terminal.
func TestWarnAndFail(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := errors.Join(
		w.WriteHeader(header(tar.TypeDir, ".", "")), w.Warn("%s: left out", "a\x1b]0;x\x07\x00b\xff\u009b"),
		w.Warn("%s", strings.Repeat("long", 100_000)), w.Fail(errors.New("it broke\n\x1b[2J")), w.Close(),
	); err != nil {
		t.Fatal(err)
	}
	text := bytes.Clone(b.Bytes())
	var heard []string
	names, err := last(NewReader(&b, func(s string) { heard = append(heard, s) }))
	if len(names) != 1 || !errors.Is(err, schema.ErrRefused) || err.Error() != "it broke??[2J: refused" {
		t.Errorf("%q, %v", names, err)
	}
	if len(heard) != 2 || heard[0] != "a?]0;x?b??: left out" || len(heard[1]) > 4<<10 {
		t.Errorf("%.100q", heard)
	}
	if _, err := last(NewReader(bytes.NewReader(text), nil)); err == nil {
		t.Error("without somebody to warn it does not fail")
	}
}

func TestInside(t *testing.T) {
	for link, want := range map[string]bool{
		"a -> b": true, "a -> ./b": true, "d/a -> ../b": true, "d/e/a -> ../../b/c": true, "d/a -> ..": true, "a -> .": true,
		"a -> ..": false, "a -> /b": false, "d/a -> ../../b": false, "d/a -> ../..": false, "a -> ../b": false,
		// Inside by its text; not if b, or c, is a link.
		"a -> b/..": false, "a -> b/c/../../d": false, "d/a -> ../b/..": false, "a -> b//..": false,
	} {
		name, target, _ := strings.Cut(link, " -> ")
		if got := Inside(name, target); got != want {
			t.Errorf("%s: %v", link, got)
		}
	}
}

// Whatever comes, what is let through is below the tree, of few kinds, and not
// longer than what came.
func FuzzReader(f *testing.F) {
	f.Add(packed(f, header(tar.TypeReg, "a", ""), header(tar.TypeSymlink, "d/l", "../a")))
	f.Add(packed(f, header(tar.TypeReg, "../a", "")))
	f.Add(packed(f, header(tar.TypeLink, "a", "b")))
	f.Add(append(packed(f)[:512], sparse(f)...))
	f.Add(append(packed(f)[:512], packed(f)...))
	f.Fuzz(func(t *testing.T, text []byte) {
		heard := 0
		r := NewReader(bytes.NewReader(text), func(s string) {
			if heard += len(s); s != Printable(s) {
				t.Errorf("a terminal is told %q", s)
			}
		})
		var size int64
		for i := 0; ; i++ {
			h, err := r.Next()
			if err != nil {
				break
			}
			if first := i == 0; first != (h.Name == Self) || !filepath.IsLocal(h.Name) || h.Name != path.Clean(h.Name) || strings.ContainsRune(h.Name, 0) {
				t.Fatalf("entry %d is %q", i, h.Name)
			}
			if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir && (h.Typeflag != tar.TypeSymlink || h.Linkname == "") {
				t.Fatalf("%q is of kind %q", h.Name, h.Typeflag)
			}
			n, _ := io.Copy(io.Discard, r)
			size += n
		}
		if size > int64(len(text)) || heard > 8*len(text) {
			t.Errorf("%d bytes hold %d, and say %d", len(text), size, heard)
		}
	})
}
