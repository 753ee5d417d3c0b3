package manifest

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A shape says which nodes a place of a manifest may hold. It is what the
// definitions say, read once.
type shape interface {
	// accepts says whether a scalar, or for maps and lists the kind of node,
	// is allowed. What is inside maps and lists is the checker's business.
	accepts(n *node) bool
	// words is what a value must be, as it stands after "must be".
	words() string
}

// anyShape is _: everything.
type anyShape struct{}

func (anyShape) accepts(*node) bool { return true }
func (anyShape) words() string      { return "anything" }

// kindShape is string, bool, int or number, with the bounds of int32 and int64.
type kindShape struct {
	name string
	bits int // of int32 and int64
}

func (s kindShape) accepts(n *node) bool {
	switch s.name {
	case "string":
		return n.kind == stringNode
	case "bool":
		return n.kind == boolNode
	case "number":
		return n.kind == intNode || n.kind == floatNode
	}
	if n.kind != intNode {
		return false
	}
	if s.bits == 0 {
		return true
	}
	_, err := strconv.ParseInt(n.text, 10, s.bits)
	return err == nil
}

func (s kindShape) words() string {
	switch s.name {
	case "string":
		return "a string"
	case "bool":
		return "true or false"
	case "number":
		return "a number"
	}
	if s.bits == 32 {
		return "a whole number below 2147483648"
	}
	return "a whole number"
}

// literalShape is one value.
type literalShape struct {
	kind nodeKind
	text string
}

func (s literalShape) accepts(n *node) bool { return n.kind == s.kind && n.text == s.text }

func (s literalShape) words() string {
	if s.kind == stringNode && s.text == "" {
		return "empty"
	}
	return s.text
}

// boundShape is a comparison with a number, or != "".
type boundShape struct {
	op     string
	number float64
	text   string
	isText bool
}

func (s boundShape) accepts(n *node) bool {
	if s.isText {
		return n.kind == stringNode && n.text != s.text
	}
	if n.kind != intNode && n.kind != floatNode {
		return false
	}
	v, err := strconv.ParseFloat(n.text, 64)
	if err != nil {
		return false
	}
	switch s.op {
	case ">=":
		return v >= s.number
	case "<=":
		return v <= s.number
	case ">":
		return v > s.number
	case "<":
		return v < s.number
	}
	return v != s.number
}

func (s boundShape) words() string {
	number := strconv.FormatFloat(s.number, 'f', -1, 64)
	switch {
	case s.isText && s.text == "":
		return "text that is not empty"
	case s.isText:
		return "another text than " + quote(s.text)
	case s.op == ">=":
		return "at least " + number
	case s.op == "<=":
		return "at most " + number
	case s.op == ">":
		return "more than " + number
	case s.op == "<":
		return "less than " + number
	}
	return "another number than " + number
}

// patternShape is =~ and !~.
type patternShape struct {
	expression *regexp.Regexp
	not        bool
}

func (s patternShape) accepts(n *node) bool {
	return n.kind == stringNode && s.expression.MatchString(n.text) != s.not
}

func (s patternShape) words() string {
	if s.not {
		return "text that does not match " + s.expression.String()
	}
	return "text that matches " + s.expression.String()
}

// runesShape is strings.MaxRunes and strings.MinRunes.
type runesShape struct {
	limit int
	least bool
}

func (s runesShape) accepts(n *node) bool {
	if n.kind != stringNode {
		return false
	}
	count := utf8.RuneCountInString(n.text)
	if s.least {
		return count >= s.limit
	}
	return count <= s.limit
}

func (s runesShape) words() string {
	if s.least {
		return "at least " + strconv.Itoa(s.limit) + " characters"
	}
	return "at most " + strconv.Itoa(s.limit) + " characters"
}

// allShape is A & B.
type allShape struct{ parts []shape }

func (s allShape) accepts(n *node) bool {
	for _, p := range s.parts {
		if !p.accepts(n) {
			return false
		}
	}
	return true
}

func (s allShape) words() string {
	if text := s.between(); text != "" {
		return text
	}
	var parts []string
	for i, p := range s.parts {
		w := p.words()
		if k, ok := p.(kindShape); ok && len(s.parts) > 1 && i == 0 && k.name != "bool" {
			w = kindShape{name: k.name}.words()
		}
		parts = append(parts, w)
	}
	text := strings.Join(parts, ", ")
	return strings.Replace(text, "a whole number, ", "a whole number of ", 1)
}

// between words whole numbers within two bounds; "" for everything else.
func (s allShape) between() string {
	if len(s.parts) != 3 {
		return ""
	}
	kind, isKind := s.parts[0].(kindShape)
	low, isLow := s.parts[1].(boundShape)
	high, isHigh := s.parts[2].(boundShape)
	if !isKind || !isLow || !isHigh || kind.name != "int" || low.op != ">=" || high.op != "<=" {
		return ""
	}
	return "a whole number between " + strconv.FormatFloat(low.number, 'f', -1, 64) + " and " + strconv.FormatFloat(high.number, 'f', -1, 64)
}

// anyOfShape is A | B.
type anyOfShape struct {
	parts []shape
	usual shape // the one marked with *, nil when there is none
}

func (s anyOfShape) accepts(n *node) bool {
	for _, p := range s.parts {
		if p.accepts(n) {
			return true
		}
	}
	return false
}

func (s anyOfShape) words() string {
	var literals, others []string
	for _, p := range s.parts {
		if l, ok := p.(literalShape); ok {
			// The default of a wider type is no choice of its own.
			if l.text != "" && !s.coveredByOther(p) {
				literals = append(literals, l.text)
			}
			continue
		}
		others = append(others, p.words())
	}
	switch {
	case len(literals) > 1:
		others = append([]string{"one of " + strings.Join(literals, ", ")}, others...)
	case len(literals) == 1:
		others = append(literals, others...)
	}
	return strings.Join(others, ", or ")
}

func (s anyOfShape) coveredByOther(p shape) bool {
	l, ok := p.(literalShape)
	if !ok {
		return false
	}
	for _, o := range s.parts {
		if _, literal := o.(literalShape); !literal && o.accepts(&node{kind: l.kind, text: l.text}) {
			return true
		}
	}
	return false
}

// A namedShape is a reference to a definition; means are its words, if it has any.
type namedShape struct {
	name  string
	means string
	shape shape // set once every definition is read: definitions may refer to later ones
}

func (s *namedShape) accepts(n *node) bool { return s.shape.accepts(n) }

func (s *namedShape) words() string {
	if s.means != "" {
		return s.means
	}
	return s.shape.words()
}

// listShape is [first, ...rest].
type listShape struct {
	first []shape // that must be there
	rest  shape   // nil: nothing may follow
}

func (s *listShape) accepts(n *node) bool { return n.kind == listNode }
func (s *listShape) words() string        { return "a list" }

// A structShape is {…}.
type structShape struct {
	fields   []*fieldShape
	byName   map[string]*fieldShape
	patterns []*fieldShape // name is "" and key says which keys
	open     bool          // "..."
	choices  []choice
	embedded []*namedShape // whose fields are among fields after resolve
}

func (s *structShape) accepts(n *node) bool { return n.kind == mapNode }
func (s *structShape) words() string        { return "a map" }

// A fieldShape is one field of a struct.
type fieldShape struct {
	name     string
	key      shape // of a pattern
	required bool
	shape    shape
	support  support
	differs  string // what it does otherwise than in Kubernetes; "": nothing
	note     string // why, for everything but supported
	means    string // @pawl(means) on the field itself
	doc      string
}

// A choice is fields of which there must be one: exactly, or with least 0 at most.
type choice struct {
	least int
	names []string
}

// A support is what Pawl does with a field.
type support uint8

const (
	supported support = iota
	warned            // kept, with a warning
	dropped           // left out, with a warning
	ignored           // left out
	unsupported
)

// usual returns the default of a field, nil when there is none.
func (f *fieldShape) usual() shape {
	if a, ok := f.shape.(anyOfShape); ok {
		return a.usual
	}
	return nil
}
