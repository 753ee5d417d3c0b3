// Package archive is the form in which files are copied out of a container and
// into it: a tar whose first entry, ".", is the file or directory itself, and
// whose others are below it. A global header without an entry of its own carries
// a warning or an error of whoever packs, so that other readers of tars can read
// it too.
//
// The package judges entries; it refuses to touch a file system. What it lets
// through stays below the place where it is unpacked, as long as whoever unpacks
// follows no link on the way.
package archive

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// Self is the name of the entry of what was asked for.
const Self = "."

// Keys of what stands in a global header.
const (
	warningKey = "PAWL.warning"
	errorKey   = "PAWL.error"
)

// A Writer packs.
type Writer struct{ *tar.Writer }

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) Writer { return Writer{tar.NewWriter(w)} }

// Warn tells whoever unpacks what is missing.
func (w Writer) Warn(format string, args ...any) error {
	return w.say(warningKey, fmt.Sprintf(format, args...))
}

// Fail tells whoever unpacks why the rest is missing. It is the last word.
func (w Writer) Fail(err error) error { return w.say(errorKey, err.Error()) }

func (w Writer) say(key, text string) error {
	const most = 4 << 10
	text = strings.ToValidUTF8(strings.ReplaceAll(text[:min(len(text), most)], "\x00", ""), "?")
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pawl", PAXRecords: map[string]string{key: text}})
}

// Header is the header of a file's entry, without a name; target is that of a link.
func Header(info fs.FileInfo, target string) (*tar.Header, error) {
	h, err := tar.FileInfoHeader(nameless{info}, target)
	if err != nil {
		return nil, err
	}
	h.AccessTime, h.ChangeTime, h.Format = time.Time{}, time.Time{}, tar.FormatPAX
	return h, nil
}

// nameless is a file whose owner's name is not looked up: it would be this
// machine's, and be sought in its files for each file anew.
type nameless struct{ fs.FileInfo }

// Uname implements tar.FileInfoNames.
func (nameless) Uname() (string, error) { return "", nil }

// Gname implements tar.FileInfoNames.
func (nameless) Gname() (string, error) { return "", nil }

// A Reader unpacks.
type Reader struct {
	*tar.Reader
	warn  func(string)
	first bool
}

// NewReader returns a Reader from r; warn is given warnings, with what is not
// printable in them replaced.
func NewReader(r io.Reader, warn func(string)) *Reader {
	return &Reader{Reader: tar.NewReader(r), warn: warn, first: true}
}

// Next is the next entry, whose name is clean, and io.EOF at the end. An entry
// that leads out of the tree, a hard link, a device, and a file with holes (a
// few bytes could stand for any number) are errors wrapping schema.ErrRefused; so
// is what the packer failed with.
func (r *Reader) Next() (*tar.Header, error) {
	for {
		h, err := r.Reader.Next()
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			if text := h.PAXRecords[errorKey]; text != "" {
				return nil, fmt.Errorf("%s: %w", Printable(text), schema.ErrRefused)
			}
			if text := h.PAXRecords[warningKey]; text != "" && r.warn != nil {
				r.warn(Printable(text))
			}
			continue
		}
		if err := r.check(h); err != nil {
			return nil, err
		}
		r.first = false
		return h, nil
	}
}

func (r *Reader) check(h *tar.Header) error {
	refuse := func(why string) error {
		return fmt.Errorf("tar entry %q %s: %w", h.Name, why, schema.ErrRefused)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeSymlink:
		if h.Linkname == "" {
			return refuse("is a link to nothing")
		}
	case tar.TypeLink:
		return refuse("is a hard link")
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return refuse("is a device or a pipe")
	default:
		return refuse("is of no known kind")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return refuse("has holes")
		}
	}
	name := path.Clean(h.Name)
	switch {
	case h.Name == "" || strings.ContainsRune(h.Name, 0) || path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../"):
		return refuse("leads out of the tree")
	case r.first != (name == Self):
		return refuse("is out of place")
	case r.first && h.Typeflag == tar.TypeSymlink:
		return refuse("is a link where a file or a directory belongs")
	}
	h.Name = name
	return nil
}

// Inside says whether a link in an entry's place leads nowhere but into the
// tree, as long as the directory it stands in is where its name says. A target
// that goes up again after it has gone down is not judged by its text: what it
// went through may be a link.
func Inside(name, target string) bool {
	down := false
	for _, part := range strings.Split(target, "/") {
		switch {
		case part == ".." && down:
			return false
		case part != ".." && part != "." && part != "":
			down = true
		}
	}
	to := path.Join(path.Dir(name), target)
	return !path.IsAbs(target) && to != ".." && !strings.HasPrefix(to, "../")
}

// Printable is a text without what a terminal would obey.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}
