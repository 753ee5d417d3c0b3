package manifest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
)

// parseYAML reads every document of a YAML file. Documents are cut at the
// markers and parsed one by one, so that a syntax error in one does not hide
// the faults of the others. Empty documents are left out.
func parseYAML(file string, content []byte, faults *faultList) []document {
	if !utf8.Valid(content) {
		faults.at(file, position{}, "is not UTF-8 text", "manifests are YAML, JSON or CUE in UTF-8")
		return nil
	}
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	chunks := splitYAML(content)
	if len(chunks) > maxDocuments {
		faults.at(file, position{}, fmt.Sprintf("has %d documents, the limit is %d", len(chunks), maxDocuments), "split the file")
		return nil
	}
	var documents []document
	for _, c := range chunks {
		root, err := parseYAMLDocument(file, c, faults)
		if err != nil {
			var f *yamlFault
			if !errors.As(err, &f) {
				f = &yamlFault{at: position{line: c.line}, problem: "cannot be read as YAML"}
			}
			faults.at(file, f.at, f.problem, f.remedy)
			continue
		}
		if root != nil {
			documents = append(documents, document{file: file, root: root})
		}
	}
	return documents
}

// A chunk is the text of one document; line is the number of its first line.
type chunk struct {
	text []byte
	line int
}

// splitYAML cuts at lines that begin with "---", which YAML reserves for that
// even inside block scalars. The marker stays with the document it begins, so
// that columns on its line are right.
func splitYAML(content []byte) []chunk {
	var chunks []chunk
	start, startLine, line := 0, 1, 1
	empty := true // nothing but blank lines and comments since start
	directive := false
	for i := 0; i < len(content); {
		end := bytes.IndexByte(content[i:], '\n')
		if end < 0 {
			end = len(content)
		} else {
			end += i + 1
		}
		text := content[i:end]
		if isMarker(text) && i > start {
			switch {
			case directive && empty: // %YAML belongs to the document that the marker begins
			default:
				if !empty {
					chunks = append(chunks, chunk{text: content[start:i], line: startLine})
				}
				start, startLine, empty = i, line, true
			}
			directive = false
		}
		body := text
		if isMarker(text) {
			body = text[3:]
		}
		switch t := bytes.TrimSpace(body); {
		case len(t) == 0 || t[0] == '#':
		case t[0] == '%' && empty && body[0] == '%':
			directive = true
		default:
			empty = false
		}
		i = end
		line++
	}
	if !empty {
		chunks = append(chunks, chunk{text: content[start:], line: startLine})
	}
	return chunks
}

func isMarker(line []byte) bool {
	return bytes.HasPrefix(line, []byte("---")) && (len(line) == 3 || line[3] == ' ' || line[3] == '\t' || line[3] == '\n' || line[3] == '\r')
}

// A yamlFault is a fault with its place, on the way out of the parser.
type yamlFault struct {
	at              position
	problem, remedy string
}

func (f *yamlFault) Error() string { return f.problem }

// parseYAMLDocument returns nil for an empty document.
func parseYAMLDocument(file string, c chunk, faults *faultList) (root *node, err error) {
	defer func() {
		if p := recover(); p != nil { // the YAML library panics on some malformed input
			root, err = nil, &yamlFault{at: position{line: c.line}, problem: "cannot be read as YAML", remedy: ""}
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(c.text))
	var doc yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, syntaxFault(err, c)
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	r := yamlReader{file: file, faults: faults, shift: c.line - 1}
	root, err = r.read(doc.Content[0], 0)
	if err != nil {
		return nil, err
	}
	var rest yaml.Node
	if err := decoder.Decode(&rest); err == nil {
		return nil, &yamlFault{at: position{line: rest.Line + r.shift, column: rest.Column}, problem: "a second document begins without a marker", remedy: `put "---" on a line of its own between documents`}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxFault(err, c)
	}
	if root.kind == nullNode {
		return nil, nil
	}
	return root, nil
}

var (
	yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	yamlAnchor    = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntaxFault shifts the library's line number to the file's.
func syntaxFault(err error, c chunk) error {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	line := c.line
	if m := yamlErrorLine.FindStringSubmatch(text); m != nil {
		text = m[2]
		if n, e := strconv.Atoi(m[1]); e == nil {
			line = c.line + n - 1
		}
	}
	if m := yamlAnchor.FindStringSubmatch(text); m != nil { // comes without a line
		before, _, _ := bytes.Cut(c.text, []byte("*"+m[1]))
		line = c.line + bytes.Count(before, []byte("\n"))
	}
	f := &yamlFault{at: position{line: line}}
	f.problem, f.remedy = yamlWords(text)
	return f
}

// A yamlReader turns the library's tree into nodes: aliases shared and counted,
// merge keys expanded, scalars as Kubernetes reads them.
type yamlReader struct {
	file   string
	faults *faultList
	shift  int                  // added to the library's line numbers
	done   map[*yaml.Node]*node // anchored values that are complete
}

func (r *yamlReader) at(y *yaml.Node) position {
	return position{line: y.Line + r.shift, column: y.Column}
}

// note records a fault that reading can go on behind, so that it hides no other.
func (r *yamlReader) note(y *yaml.Node, problem, remedy string) {
	r.faults.at(r.file, r.at(y), problem, remedy)
}

func (r *yamlReader) fail(y *yaml.Node, problem, remedy string) error {
	return &yamlFault{at: r.at(y), problem: problem, remedy: remedy}
}

func (r *yamlReader) read(y *yaml.Node, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, r.fail(y, fmt.Sprintf("maps and lists are nested deeper than %d levels", maxDepth), "")
	}
	if y.Kind == yaml.AliasNode {
		n := r.done[y.Alias]
		if n == nil {
			return nil, r.fail(y, "an alias stands inside the value it names", "")
		}
		return n, nil
	}
	n := &node{at: r.at(y), size: 1}
	var err error
	switch y.Kind {
	case yaml.ScalarNode:
		err = r.scalar(n, y)
	case yaml.SequenceNode:
		err = r.list(n, y, depth)
	case yaml.MappingNode:
		err = r.mapping(n, y, depth)
	default:
		err = r.fail(y, "is neither a value, a list nor a map", "")
	}
	if err != nil {
		return nil, err
	}
	if n.size > maxNodes || n.bytes > maxDocumentSize {
		return nil, r.fail(y, "grows too large once its aliases are expanded",
			fmt.Sprintf("at most %d values and %d MiB of text in one document", maxNodes, maxDocumentSize>>20))
	}
	if y.Anchor != "" {
		if r.done == nil {
			r.done = map[*yaml.Node]*node{}
		}
		r.done[y] = n
	}
	return n, nil
}

func (r *yamlReader) list(n *node, y *yaml.Node, depth int) error {
	n.kind = listNode
	n.items = make([]*node, 0, len(y.Content))
	for _, item := range y.Content {
		v, err := r.read(item, depth+1)
		if err != nil {
			return err
		}
		n.items = append(n.items, v)
		n.size += v.size
		n.bytes += v.bytes
	}
	return nil
}

func (r *yamlReader) mapping(n *node, y *yaml.Node, depth int) error {
	n.kind = mapNode
	n.fields = make([]field, 0, len(y.Content)/2)
	seen := make(map[string]position, len(y.Content)/2)
	var merges []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && (k.Tag == "" || k.Tag == "!!merge") {
			merges = append(merges, v)
			continue
		}
		key, err := r.key(k)
		if err != nil {
			return err
		}
		value, err := r.read(v, depth+1)
		if err != nil {
			return err
		}
		if first, twice := seen[key]; twice {
			doubled(r.file, key, r.at(k), first, n.get(key), value, r.faults)
			continue
		}
		seen[key] = r.at(k)
		n.fields = append(n.fields, field{key: key, at: r.at(k), value: value})
		n.size += value.size
		n.bytes += value.bytes + len(key)
	}
	for _, m := range merges {
		if err := r.merge(n, m, seen, depth); err != nil {
			return err
		}
	}
	return nil
}

// doubled judges a key that stands twice in a map: with one value it is clumsy,
// with two nobody knows which is meant.
func doubled(file, key string, at, first position, one, other *node, faults *faultList) {
	problem := fmt.Sprintf("%s stands twice in this map, first on line %d", keyWord(key), first.line)
	if !bytes.Equal(one.appendJSON(nil), other.appendJSON(nil)) {
		faults.at(file, at, problem+" with another value", "keep one of them")
		return
	}
	faults.warn(file, at, problem, "keep one of them")
}

// merge adds the fields of the maps a "<<" names; those already there win.
func (r *yamlReader) merge(n *node, y *yaml.Node, seen map[string]position, depth int) error {
	source, err := r.read(y, depth+1)
	if err != nil {
		return err
	}
	sources := []*node{source}
	if source.kind == listNode {
		sources = source.items
	}
	for _, s := range sources {
		if s.kind != mapNode {
			return r.fail(y, `"<<" merges maps, this is `+s.kind.String(), "")
		}
		for _, f := range s.fields {
			if _, there := seen[f.key]; there {
				continue
			}
			seen[f.key] = f.at
			n.fields = append(n.fields, f)
			n.size += f.value.size
			n.bytes += f.value.bytes + len(f.key)
		}
	}
	return nil
}

// key reads a map's key. A key that YAML takes for another type than text is
// accepted when it is the same text in every reading (8080), else refused.
func (r *yamlReader) key(y *yaml.Node) (string, error) {
	if y.Kind == yaml.AliasNode {
		y = y.Alias
	}
	if y.Kind != yaml.ScalarNode {
		return "", r.fail(y, "a key must be text, not a list or map", "")
	}
	n := &node{at: r.at(y)}
	if err := r.scalar(n, y); err != nil {
		return "", err
	}
	if n.kind == stringNode || (n.kind != nullNode && n.text == y.Value) {
		return n.text, nil
	}
	r.note(y, fmt.Sprintf("%s is %s to YAML", keyWord(y.Value), n.kind), "write it in quotes")
	return y.Value, nil
}

// oldBooleans are booleans to YAML 1.1, which Kubernetes reads, and text to YAML 1.2.
var oldBooleans = map[string]string{
	"y": "true", "Y": "true", "yes": "true", "Yes": "true", "YES": "true", "on": "true", "On": "true", "ON": "true",
	"n": "false", "N": "false", "no": "false", "No": "false", "NO": "false", "off": "false", "Off": "false", "OFF": "false",
}

func (r *yamlReader) scalar(n *node, y *yaml.Node) error {
	tag := y.ShortTag()
	plain := y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	if plain && tag == "!!str" && y.Style&yaml.TaggedStyle == 0 {
		if b, ok := oldBooleans[y.Value]; ok {
			n.kind, n.text, n.raw = boolNode, b, y.Value
			return nil
		}
	}
	switch tag {
	case "!!null":
		n.kind = nullNode
	case "!!bool":
		n.kind, n.text, n.raw = boolNode, strings.ToLower(y.Value), y.Value
		if b, ok := oldBooleans[y.Value]; ok {
			n.text = b
		}
	case "!!int":
		return r.integer(n, y)
	case "!!float":
		return r.float(n, y)
	case "!!str", "!!timestamp", "!!merge": // a time is what it says: Kubernetes knows it as a string
		n.kind, n.text = stringNode, y.Value
		n.bytes = len(y.Value)
	case "!!binary":
		r.binary(n, y)
	default:
		r.note(y, "has a tag that is not known", `manifests use plain YAML without own tags; put a value that begins with "!" in quotes`)
		n.kind, n.text = stringNode, y.Value
	}
	return nil
}

// binary reads what stands there in base64. JSON, which Kubernetes makes of it, has
// no other strings than text.
func (r *yamlReader) binary(n *node, y *yaml.Node) {
	n.kind = stringNode
	text, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(y.Value), ""))
	switch {
	case err != nil:
		r.note(y, "is tagged !!binary and is no base64", "")
	case !utf8.Valid(text):
		r.note(y, "is tagged !!binary and holds no text", "without the tag, in a field that takes base64 (data of a Secret, binaryData of a ConfigMap)")
	default:
		n.text, n.bytes = string(text), len(text)
	}
}

func (r *yamlReader) integer(n *node, y *yaml.Node) error {
	plain := strings.ReplaceAll(y.Value, "_", "")
	n.kind, n.raw = intNode, y.Value
	if v, err := strconv.ParseInt(plain, 0, 64); err == nil {
		n.text = strconv.FormatInt(v, 10)
		return nil
	}
	if v, err := strconv.ParseUint(strings.TrimPrefix(plain, "+"), 0, 64); err == nil {
		n.text = strconv.FormatUint(v, 10)
		return nil
	}
	var v int64
	if err := y.Decode(&v); err != nil {
		return r.fail(y, "is a number that is too large", "write it in quotes if it is text")
	}
	n.text = strconv.FormatInt(v, 10)
	return nil
}

func (r *yamlReader) float(n *node, y *yaml.Node) error {
	var v float64
	if err := y.Decode(&v); err != nil {
		return r.fail(y, "is a number that cannot be read", "")
	}
	text, ok := floatText(v)
	if !ok {
		r.note(y, "is a number that is not finite", "write it in quotes if it is text")
		n.kind, n.text = stringNode, y.Value
		return nil
	}
	n.kind, n.text, n.raw = floatNode, text, y.Value
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		n.kind = intNode // 3.0 is a whole number, as JSON has it
	}
	return nil
}
