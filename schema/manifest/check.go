package manifest

import (
	"fmt"
	"strconv"
	"strings"
)

// A trail is where the checker stands, written out only for a fault.
type trail struct {
	up    *trail
	key   string
	index int // in a list when key is ""
}

func (t *trail) String() string {
	if t == nil {
		return ""
	}
	if t.key == "" && t.index >= 0 {
		return indexPath(t.up.String(), t.index)
	}
	return fieldPath(t.up.String(), t.key)
}

// A checker holds a document against the shape of its kind. It goes on after a
// fault, so that one does not hide another.
type checker struct {
	out     *objectReader
	root    *structShape
	refused int // faults about fields that are not supported; the object is sound without them
}

// check holds the document against the definition of its kind and returns what
// is left of it for the typed decoder: without nulls, ignored fields and those that
// are not supported. It is whole when there is nothing else wrong with it.
func (o *objectReader) check() (clean *node, whole bool) {
	kind, ok := shapes()[o.info.GVK.Kind]
	if !ok {
		o.fault("kind", "has no definition", "this is a bug of Pawl")
		return o.root, false
	}
	c := &checker{out: o}
	c.root, _ = kind.shape.(*structShape)
	before := len(o.faults.faults)
	clean = c.value(o.root, kind, o.root.at, nil, "")
	return clean, len(o.faults.faults)-before == c.refused && o.faults.dropped == 0
}

// value checks one node. at is where a fault about the whole of it points.
// means are the words of the field, "" when the shape's own serve.
func (c *checker) value(n *node, s shape, at position, t *trail, means string) *node {
	if named, ok := s.(*namedShape); ok {
		if means == "" {
			means = named.means
		}
		return c.value(n, named.shape, at, t, means)
	}
	switch s := s.(type) {
	case anyShape:
		return n
	case *structShape:
		if n.kind == mapNode {
			return c.fields(n, s, at, t)
		}
	case *listShape:
		if n.kind == listNode {
			return c.items(n, s, at, t)
		}
	}
	if s.accepts(n) {
		return n
	}
	c.mismatch(n, s, t, means)
	return n
}

// mismatch says what a value should have been.
func (c *checker) mismatch(n *node, s shape, t *trail, means string) {
	want := means
	if want == "" {
		want = s.words()
	}
	is, remedy := n.describe(), remedyFor(n, s)
	if maySeal(c.out.info.Kind) {
		is = n.kind.String()
		remedy, _, _ = strings.Cut(remedy, ": ") // it repeats the value
	}
	c.out.faultAt(n.at, t.String(), "must be "+want+", is "+is, remedy)
}

// remedyFor finds what the author probably meant.
func remedyFor(n *node, s shape) string {
	if _, list := s.(*listShape); list && n.kind != mapNode {
		return `write a list, each item behind "- "`
	}
	switch n.kind {
	case stringNode:
		if len(n.text) < 20 {
			if v, err := strconv.ParseInt(n.text, 10, 64); err == nil && s.accepts(&node{kind: intNode, text: strconv.FormatInt(v, 10)}) {
				return "remove the quotes"
			}
			if b := strings.ToLower(n.text); (b == "true" || b == "false") && s.accepts(&node{kind: boolNode, text: b}) {
				return "remove the quotes"
			}
		}
		if guess := nearest(n.text, literals(s)); guess != "" {
			return "did you mean " + guess + "?"
		}
	case intNode, floatNode, boolNode:
		if s.accepts(&node{kind: stringNode, text: n.written()}) {
			return "write it in quotes: " + strconv.Quote(n.written())
		}
	}
	return ""
}

// literals are the texts that a shape names.
func literals(s shape) []string {
	switch s := s.(type) {
	case literalShape:
		if s.kind == stringNode {
			return []string{s.text}
		}
	case anyOfShape:
		var out []string
		for _, p := range s.parts {
			out = append(out, literals(p)...)
		}
		return out
	case *namedShape:
		return literals(s.shape)
	}
	return nil
}

func (c *checker) items(n *node, s *listShape, at position, t *trail) *node {
	if len(n.items) < len(s.first) {
		c.out.faultAt(at, t.String(), fmt.Sprintf("must have at least %d item%s", len(s.first), plural(len(s.first))), "")
	}
	out := n
	for i, item := range n.items {
		here := &trail{up: t, index: i}
		of := s.rest
		if i < len(s.first) {
			of = s.first[i]
		}
		switch {
		case of == nil:
			c.out.faultAt(item.at, here.String(), fmt.Sprintf("is one too many, there may be %d", len(s.first)), "")
			return out
		case item.kind == nullNode:
			c.out.faultAt(item.at, here.String(), "is empty", "remove it or give it a value")
			continue
		}
		clean := c.value(item, of, item.at, here, "")
		if clean != item {
			if out == n {
				copied := *n
				copied.items = append([]*node(nil), n.items...)
				out = &copied
			}
			out.items[i] = clean
		}
	}
	return out
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// fields checks a map.
func (c *checker) fields(n *node, s *structShape, at position, t *trail) *node {
	kept := make([]field, 0, len(n.fields))
	var meant map[string]bool // fields that an unknown one was probably meant to be
	for i := range n.fields {
		f := &n.fields[i]
		here := &trail{up: t, key: f.key, index: -1}
		if known := s.byName[f.key]; known != nil {
			if v := c.field(f, known, s, here); v != nil {
				kept = append(kept, field{key: f.key, at: f.at, value: v})
			}
			continue
		}
		if p := s.pattern(f.key); p != nil {
			if v := c.entry(f, p, here); v != nil {
				kept = append(kept, field{key: f.key, at: f.at, value: v})
			}
			continue
		}
		if s.open {
			kept = append(kept, *f)
			continue
		}
		if guess := c.unknown(f, s, t); guess != "" {
			if meant == nil {
				meant = map[string]bool{}
			}
			meant[guess] = true
		}
	}
	for _, f := range s.fields {
		if !f.required || meant[f.name] {
			continue
		}
		if v := n.get(f.name); v == nil || v.kind == nullNode {
			c.missing(f, at, t)
		}
	}
	c.choose(n, s, at, t)
	clean := *n
	clean.fields = kept
	return &clean
}

func (c *checker) missing(f *fieldShape, at position, t *trail) {
	want := f.means
	if _, structure := base(f.shape).(*structShape); want == "" && !structure {
		want = f.shape.words()
	}
	remedy := ""
	if want != "" && want != "anything" {
		remedy = "must be " + want
	}
	c.out.faultAt(at, (&trail{up: t, key: f.name, index: -1}).String(), "is missing", remedy)
}

// base follows names to what they stand for.
func base(s shape) shape {
	for {
		n, ok := s.(*namedShape)
		if !ok {
			return s
		}
		s = n.shape
	}
}

// pattern finds the pattern that allows a key.
func (s *structShape) pattern(key string) *fieldShape {
	for _, p := range s.patterns {
		if p.key.accepts(&node{kind: stringNode, text: key}) {
			return p
		}
	}
	return nil
}

// entry checks a field allowed by a pattern. In such maps a null is an empty
// text, as Kubernetes reads it.
func (c *checker) entry(f *field, p *fieldShape, here *trail) *node {
	if p.support == unsupported {
		c.refuse(f, p, here)
		return nil
	}
	value := f.value
	if value.kind == nullNode {
		empty := &node{kind: stringNode, at: f.at, size: 1}
		if !p.shape.accepts(empty) {
			c.out.faultAt(f.at, here.String(), "has no value", "must be "+p.shape.words())
			return nil
		}
		value = empty
	}
	return c.value(value, p.shape, f.at, here, p.means)
}

// field checks a field that the definition names; nil when it is left out.
func (c *checker) field(f *field, known *fieldShape, s *structShape, here *trail) *node {
	if f.value.kind == nullNode || known.support == ignored {
		return nil
	}
	switch known.support {
	case unsupported:
		if harmless(f.value, known, s) {
			return nil
		}
		c.refuse(f, known, here)
		return nil
	case warned, dropped:
		if !harmless(f.value, known, s) {
			what := "has no effect: "
			if known.support == dropped {
				what = "is left out: "
			}
			c.out.warn(f.at, here.String(), what+known.note, "")
		}
	}
	clean := c.value(f.value, known.shape, f.at, here, known.means)
	if known.support == dropped {
		return nil
	}
	return clean
}

func (c *checker) refuse(f *field, known *fieldShape, here *trail) {
	c.refused++
	c.out.faultAt(f.at, here.String(), "is not supported by Pawl", known.note)
}

// harmless says whether a field without effect asks for nothing: it has its
// default or is empty. The members of a choice are never harmless, because
// being there is what they mean.
func harmless(v *node, known *fieldShape, s *structShape) bool {
	for _, choice := range s.choices {
		for _, name := range choice.names {
			if name == known.name {
				return false
			}
		}
	}
	if usual := known.usual(); usual != nil && usual.accepts(v) {
		return true
	}
	switch v.kind {
	case stringNode:
		return v.text == ""
	case listNode:
		return len(v.items) == 0
	case mapNode:
		return len(v.fields) == 0
	}
	return false
}

// unknown refuses a field that the definition does not name, and returns the
// name that was probably meant.
func (c *checker) unknown(f *field, s *structShape, t *trail) string {
	here := (&trail{up: t, key: f.key, index: -1}).String()
	hidden := maySeal(c.out.info.Kind) && !fieldName.MatchString(f.key)
	if hidden {
		here = t.String()
	}
	if len(s.fields) == 0 && len(s.patterns) > 0 {
		p := s.patterns[0]
		word := "key " + quote(f.key)
		if hidden {
			word = "a key"
		}
		c.out.faultAt(f.at, here, word+" is not allowed", "a key must be "+p.key.words())
		return ""
	}
	names := make([]string, 0, len(s.fields))
	for _, k := range s.fields {
		if k.support != unsupported && k.support != ignored {
			names = append(names, k.name)
		}
	}
	guess := nearest(f.key, names)
	if guess == "" {
		for _, k := range s.fields { // a typing error in a field that is not supported is still one
			if k.support == unsupported && distance(f.key, k.name) == 1 {
				guess = k.name
			}
		}
	}
	remedy := ""
	switch place := c.belongs(f.key); {
	case guess != "":
		remedy = "did you mean " + guess + "?"
	case place != "":
		remedy = "it belongs to " + place
	}
	problem := "unknown field"
	if hidden {
		problem = "has an unknown field"
	}
	c.out.faultAt(f.at, here, problem, remedy)
	return guess
}

// belongs finds where in an object of the kind a field of this name stands,
// the least deep place first; "" when nowhere or in several places alike.
func (c *checker) belongs(name string) string {
	if name == "name" || name == "namespace" || name == "value" {
		return "" // nearly everywhere
	}
	type place struct {
		s    *structShape
		path string
	}
	level := []place{{c.root, ""}}
	seen := map[*structShape]bool{}
	for depth := 0; depth < 6 && len(level) > 0; depth++ {
		var next []place
		found := ""
		for _, p := range level {
			if p.s == nil || seen[p.s] {
				continue
			}
			if f := p.s.byName[name]; f != nil && f.support != unsupported && f.support != ignored {
				if found != "" {
					return ""
				}
				found = strings.TrimPrefix(p.path, ".")
				if found == "" {
					found = "the top of the object"
				}
			}
			for _, f := range p.s.fields {
				path := p.path + "." + f.name
				of := base(f.shape)
				if l, ok := of.(*listShape); ok && l.rest != nil {
					of, path = base(l.rest), path+"[]"
				}
				if inner, ok := of.(*structShape); ok {
					next = append(next, place{inner, path})
				}
			}
		}
		if found != "" {
			return found
		}
		for _, p := range level {
			seen[p.s] = true
		}
		level = next
	}
	return ""
}

// choose counts the fields of which one is to be chosen.
func (c *checker) choose(n *node, s *structShape, at position, t *trail) {
	for _, choice := range s.choices {
		var present, offered []string
		for _, name := range choice.names {
			if v := n.get(name); v != nil && v.kind != nullNode {
				present = append(present, name)
			}
			if f := s.byName[name]; f == nil || f.support != unsupported {
				offered = append(offered, name)
			}
		}
		switch {
		case len(present) < choice.least:
			c.out.faultAt(at, t.String(), "must have exactly one of "+strings.Join(offered, ", "), "")
		case len(present) > 1:
			c.out.faultAt(at, t.String(), "has "+strings.Join(present, " and ")+", only one of them may be there", "")
		}
	}
}
