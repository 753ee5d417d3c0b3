package manifest

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A nodeKind is what a node holds.
type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	intNode
	floatNode
	stringNode
	mapNode
	listNode
)

// String is the word a fault uses for the kind.
func (k nodeKind) String() string {
	return [...]string{"null", "a boolean", "a whole number", "a number", "a string", "a map", "a list"}[k]
}

// A position is a place in the repository. Line and column count from 1.
type position struct {
	file         string // "" in nodes of YAML and JSON: the document's file
	line, column int
}

// A node is one value of a manifest and where it stands. Aliases are expanded
// by sharing, so a node may have several parents; nodes are never changed after
// parsing, conversion makes new ones.
type node struct {
	kind   nodeKind
	at     position
	text   string // of a string; canonical JSON of a number or boolean
	raw    string // a plain scalar as written when that differs from text
	fields []field
	items  []*node
	// size counts this node and all below, bytes their text: what they cost once expanded.
	size, bytes int
}

// A field is one entry of a map, in the order of the manifest.
type field struct {
	key   string
	at    position
	value *node
}

// get returns the value of a field, nil when the map does not have it.
func (n *node) get(key string) *node {
	if f := n.field(key); f != nil {
		return f.value
	}
	return nil
}

func (n *node) field(key string) *field {
	if n == nil || n.kind != mapNode {
		return nil
	}
	for i := range n.fields {
		if n.fields[i].key == key {
			return &n.fields[i]
		}
	}
	return nil
}

// str returns the text of a string field, "" when there is none.
func (n *node) str(key string) string {
	if v := n.get(key); v != nil && v.kind == stringNode {
		return v.text
	}
	return ""
}

// with returns a copy of a map with one field set.
func (n *node) with(key string, value *node) *node {
	c := *n
	c.fields = make([]field, 0, len(n.fields)+1)
	found := false
	for _, f := range n.fields {
		if f.key == key {
			f.value, found = value, true
		}
		c.fields = append(c.fields, f)
	}
	if !found {
		c.fields = append(c.fields, field{key: key, at: value.at, value: value})
	}
	return &c
}

// find follows a field path such as spec.containers[0].name as far as it
// exists and returns the deepest node with its position: of the key when the
// value is reached by a map, so that a fault points at the word it names.
func (n *node) find(path string) position {
	at := n.at
	for _, step := range splitPath(path) {
		if step.index >= 0 {
			if n == nil || n.kind != listNode || step.index >= len(n.items) {
				return at
			}
			n = n.items[step.index]
			at = n.at
			continue
		}
		f := n.field(step.key)
		if f == nil {
			return at
		}
		n = f.value
		at = n.at
		if n.kind == mapNode || n.kind == listNode || n.kind == nullNode {
			at = f.at
		}
	}
	return at
}

// A pathStep is one field or one index of a path; index is -1 for a field.
type pathStep struct {
	key   string
	index int
}

// splitPath reads what fieldPath and indexPath wrote.
func splitPath(path string) []pathStep {
	var steps []pathStep
	for i := 0; i < len(path); {
		switch {
		case path[i] == '.':
			i++
		case strings.HasPrefix(path[i:], `["`):
			end := strings.Index(path[i:], `"]`)
			if end < 0 {
				return steps
			}
			steps = append(steps, pathStep{key: path[i+2 : i+end], index: -1})
			i += end + 2
		case path[i] == '[':
			end := strings.IndexByte(path[i:], ']')
			if end < 0 {
				return steps
			}
			index, err := strconv.Atoi(path[i+1 : i+end])
			if err != nil {
				return steps
			}
			steps = append(steps, pathStep{index: index})
			i += end + 1
		default:
			end := strings.IndexAny(path[i:], ".[")
			if end < 0 {
				end = len(path) - i
			}
			steps = append(steps, pathStep{key: path[i : i+end], index: -1})
			i += end
		}
	}
	return steps
}

// fieldPath appends a field to a path: spec.replicas, data["a.b"].
func fieldPath(path, key string) string {
	if key == "" || strings.ContainsAny(key, `.[]"/ `) {
		return path + `["` + key + `"]`
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// indexPath appends an index to a path: spec.containers[0].
func indexPath(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// appendJSON writes the node as JSON, the form the typed decoder reads.
func (n *node) appendJSON(b []byte) []byte {
	switch n.kind {
	case nullNode:
		return append(b, "null"...)
	case boolNode, intNode, floatNode:
		return append(b, n.text...)
	case stringNode:
		return appendJSONString(b, n.text)
	case listNode:
		b = append(b, '[')
		for i, item := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	default:
		b = append(b, '{')
		for i, f := range n.fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSONString(b, f.key)
			b = append(b, ':')
			b = f.value.appendJSON(b)
		}
		return append(b, '}')
	}
}

func appendJSONString(b []byte, s string) []byte {
	plain := true
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == '"' || s[i] == '\\' || s[i] >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		b = append(b, '"')
		b = append(b, s...)
		return append(b, '"')
	}
	quoted, err := json.Marshal(s)
	if err != nil { // a string always has a JSON form
		panic(err)
	}
	return append(b, quoted...)
}

// quote puts a manifest's word into a fault: bounded, on one line.
func quote(s string) string {
	if utf8.RuneCountInString(s) > maxNameRunes {
		r := []rune(s)
		s = string(r[:maxNameRunes]) + "…"
	}
	return strconv.Quote(s)
}
