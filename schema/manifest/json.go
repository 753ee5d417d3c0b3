package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// floatText is the canonical JSON of a number; whole ones have no fraction. It
// is false for what JSON cannot say.
func floatText(v float64) (string, bool) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "", false
	}
	text, err := json.Marshal(v)
	return string(text), err == nil
}

// parseJSON reads the values of a JSON file, one after the other.
func parseJSON(file string, content []byte, faults *faultList) []document {
	if !utf8.Valid(content) {
		faults.at(file, position{}, "is not UTF-8 text", "manifests are YAML, JSON or CUE in UTF-8")
		return nil
	}
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	r := &jsonReader{file: file, faults: faults, decoder: json.NewDecoder(bytes.NewReader(content)), content: content, line: 1}
	r.decoder.UseNumber()
	var documents []document
	for {
		at := r.next()
		token, err := r.decoder.Token()
		if errors.Is(err, io.EOF) {
			return documents
		}
		var root *node
		if err == nil {
			root, err = r.value(token, at, 0)
		}
		if err == nil && len(documents) >= maxDocuments {
			err = &yamlFault{at: at, problem: fmt.Sprintf("has more than %d documents", maxDocuments), remedy: "split the file"}
		}
		if err != nil {
			f := r.fault(err)
			faults.at(file, f.at, f.problem, f.remedy)
			return documents
		}
		if root.kind != nullNode {
			documents = append(documents, document{file: file, root: root})
		}
	}
}

// A jsonReader turns JSON tokens into nodes with positions.
type jsonReader struct {
	file    string
	faults  *faultList
	decoder *json.Decoder
	content []byte
	offset  int // up to which lines were counted
	line    int // of offset
	start   int // of that line
}

// next is the position of the token that follows, separators skipped.
func (r *jsonReader) next() position {
	i := int(r.decoder.InputOffset())
	for i < len(r.content) && strings.IndexByte(" \t\r\n,:", r.content[i]) >= 0 {
		i++
	}
	return r.position(i)
}

func (r *jsonReader) position(offset int) position {
	for ; r.offset < offset && r.offset < len(r.content); r.offset++ {
		if r.content[r.offset] == '\n' {
			r.line++
			r.start = r.offset + 1
		}
	}
	return position{line: r.line, column: offset - r.start + 1}
}

func (r *jsonReader) fault(err error) *yamlFault {
	var f *yamlFault
	if errors.As(err, &f) {
		return f
	}
	at := r.next()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && int(syntax.Offset) > r.offset {
		at = r.position(int(syntax.Offset) - 1)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &yamlFault{at: at, problem: "not JSON: the file ends inside a value"}
	}
	return &yamlFault{at: at, problem: jsonWords(err.Error())}
}

func (r *jsonReader) value(token json.Token, at position, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, &yamlFault{at: at, problem: fmt.Sprintf("maps and lists are nested deeper than %d levels", maxDepth)}
	}
	n := &node{at: at, size: 1}
	switch t := token.(type) {
	case nil:
		n.kind = nullNode
	case bool:
		n.kind, n.text = boolNode, strconv.FormatBool(t)
	case string:
		n.kind, n.text, n.bytes = stringNode, t, len(t)
	case json.Number:
		return n, numberNode(n, t.String())
	case json.Delim:
		if t == '[' {
			return n, r.list(n, depth)
		}
		return n, r.object(n, depth)
	}
	return n, nil
}

// numberNode fills in a number as JSON writes it.
func numberNode(n *node, text string) error {
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		n.kind, n.text = intNode, text
		return nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return &yamlFault{at: n.at, problem: "is a number that is too large", remedy: "write it in quotes if it is text"}
	}
	n.kind = floatNode
	n.text, _ = floatText(v)
	if _, err := strconv.ParseInt(n.text, 10, 64); err == nil {
		n.kind = intNode // 3.0 is a whole number
	}
	return nil
}

func (r *jsonReader) list(n *node, depth int) error {
	n.kind = listNode
	for r.decoder.More() {
		item, err := r.element(depth)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
		n.size += item.size
		n.bytes += item.bytes
	}
	_, err := r.decoder.Token()
	return err
}

func (r *jsonReader) element(depth int) (*node, error) {
	at := r.next()
	token, err := r.decoder.Token()
	if err != nil {
		return nil, err
	}
	return r.value(token, at, depth+1)
}

func (r *jsonReader) object(n *node, depth int) error {
	n.kind = mapNode
	seen := map[string]position{}
	for r.decoder.More() {
		at := r.next()
		token, err := r.decoder.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string)
		value, err := r.element(depth)
		if err != nil {
			return err
		}
		if first, twice := seen[key]; twice {
			doubled(r.file, key, at, first, n.get(key), value, r.faults)
			continue
		}
		seen[key] = at
		n.fields = append(n.fields, field{key: key, at: at, value: value})
		n.size += value.size
		n.bytes += value.bytes + len(key)
	}
	_, err := r.decoder.Token()
	return err
}
