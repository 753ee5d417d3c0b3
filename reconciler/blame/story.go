package blame

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/manifest"
)

// A version is an object as it stands in one commit.
type version struct {
	file   string
	line   int // 0: not known
	fields []manifest.LocatedField
	values map[string]manifest.LocatedField // fields by path
}

func newVersion(file string, o manifest.LocatedObject) *version {
	v := &version{file: file, line: o.Line, fields: o.Fields, values: make(map[string]manifest.LocatedField, len(o.Fields))}
	for _, f := range o.Fields {
		v.values[f.Path] = f
	}
	return v
}

// A story is told from the present into the past. It is pure.
type story struct {
	secret  bool // values are not shown
	present *version
	first   *version // the oldest that was told
	changed *schema.BlameCommit
	created *schema.BlameCommit
	fields  map[string]schema.BlameField // by path, as changed last
}

func newStory(k schema.ObjectKey, present *version) *story {
	return &story{secret: k.Kind == schema.Secrets, present: present, first: present, fields: map[string]schema.BlameField{}}
}

// tell is told what a commit made of the object: after, of before. A nil before
// means that the object came with the commit. Commits are told newest first, and
// each before is the next after.
func (s *story) tell(c schema.Commit, after, before *version) {
	at := place(c, after.file, after.line)
	if before == nil {
		s.created = &at
		s.note(at)
		return
	}
	s.first = before
	different := false
	for path, a := range after.values {
		b, there := before.values[path]
		if there && a.Value == b.Value {
			continue
		}
		different = true
		f := schema.BlameField{Path: path, BlameCommit: place(c, after.file, a.Line), New: s.show(path, a.Value)}
		if there {
			f.Old = s.show(path, b.Value)
		}
		s.remember(f)
	}
	for path, b := range before.values {
		if _, there := after.values[path]; !there {
			different = true
			s.remember(schema.BlameField{Path: path, BlameCommit: place(c, after.file, 0), Old: s.show(path, b.Value)})
		}
	}
	if different || len(after.values) == 0 {
		s.note(at) // of an object without fields the file's change is all there is
	}
}

// remember keeps what is told first: the newest.
func (s *story) remember(f schema.BlameField) {
	if _, known := s.fields[f.Path]; !known {
		s.fields[f.Path] = f
	}
}

func (s *story) note(at schema.BlameCommit) {
	if s.changed == nil {
		s.changed = &at
	}
}

// lines are the fields that are not as they were in the first version: in the
// order of the present one, then those that are gone.
func (s *story) lines() []schema.BlameField {
	var lines []schema.BlameField
	for _, f := range s.present.fields {
		first, was := s.first.values[f.Path]
		line, known := s.fields[f.Path]
		if known && !(was && first.Value == f.Value) {
			line.Source = source(s.present.file, f.Line)
			lines = append(lines, line)
		}
	}
	for _, f := range s.first.fields {
		if _, is := s.present.values[f.Path]; !is {
			if line, known := s.fields[f.Path]; known {
				lines = append(lines, line)
			}
		}
	}
	return slices.Clip(lines)
}

func place(c schema.Commit, file string, line int) schema.BlameCommit {
	return schema.BlameCommit{
		Commit: c.ID, Author: c.Author, Email: c.Email, When: c.When.UTC(), Subject: c.Subject,
		File: file, Line: line,
	}
}

// source is a place as annotations write it.
func source(file string, line int) string {
	if line == 0 {
		return file
	}
	return file + ":" + strconv.Itoa(line)
}

// hidden is shown in place of what a Secret holds.
const hidden = "(secret)"

// show is a value for people: shortened, on one line, nothing of a Secret.
func (s *story) show(path, value string) *string {
	text := shorten(value)
	if s.secret && !public(path) {
		text = hidden
	}
	return &text
}

// public says whether a field of a Secret is none of its secrets. Annotations
// may hold a copy of the whole object.
func public(path string) bool {
	return path == "apiVersion" || path == "kind" || path == "type" || path == "immutable" ||
		strings.HasPrefix(path, "metadata.labels") || path == "metadata.name" || path == "metadata.namespace"
}

// longest is how much of a value is shown, in characters.
const longest = 48

// shorten writes a value as JSON has it, a plain text without its quotes.
func shorten(value string) string {
	var text string
	if json.Unmarshal([]byte(value), &text) == nil && plain(text) {
		value = text
	}
	if r := []rune(value); len(r) > longest {
		value = string(r[:longest-1]) + "…"
	}
	return value
}

// plain says whether a text shows as what it is without quotes.
func plain(text string) bool {
	if text == "" || strings.TrimSpace(text) != text {
		return false
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	var other any
	return json.Unmarshal([]byte(text), &other) != nil // the text 1 is not the number 1
}
