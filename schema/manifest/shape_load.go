package manifest

import (
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/literal"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"

	"github.com/pawl-project/pawl/schema"
)

// shapes returns the shape of every definition, by name without '#'. The
// definitions are part of the binary, so that an error in them is a bug.
var shapes = sync.OnceValue(func() map[string]*namedShape {
	s, err := loadShapes(schema.Definitions)
	if err != nil {
		panic(err)
	}
	return s
})

// A shapeLoader reads definitions. It refuses every construct of CUE that it
// does not understand in full.
type shapeLoader struct {
	definitions map[string]*namedShape
	structs     []*structShape
}

func loadShapes(files fs.FS) (map[string]*namedShape, error) {
	l := &shapeLoader{definitions: map[string]*namedShape{}}
	names, err := fs.Glob(files, "*.cue")
	if err != nil {
		return nil, fmt.Errorf("read definitions: %w", err)
	}
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
		file, err := parser.ParseFile(name, content, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
		if err := l.file(file); err != nil {
			return nil, err
		}
	}
	for _, d := range l.definitions {
		if d.shape == nil {
			return nil, fmt.Errorf("definition #%s is used and not defined", d.name)
		}
	}
	for _, s := range l.structs {
		if err := s.resolve(); err != nil {
			return nil, err
		}
	}
	return l.definitions, nil
}

func (l *shapeLoader) file(file *ast.File) error {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.Package, *ast.ImportDecl, *ast.CommentGroup:
		case *ast.Field:
			name, _, err := ast.LabelName(d.Label)
			if err != nil || !strings.HasPrefix(name, "#") {
				return odd(d, "only definitions stand at the top")
			}
			s, err := l.expression(d.Value)
			if err != nil {
				return err
			}
			f := &fieldShape{}
			if err := attributes(f, d.Attrs); err != nil {
				return err
			}
			n := l.named(name)
			if n.shape != nil {
				return odd(d, "a definition stands twice")
			}
			n.shape, n.means = s, f.means
		default:
			return odd(d, "only definitions stand at the top")
		}
	}
	return nil
}

func odd(n ast.Node, why string) error {
	return fmt.Errorf("definitions: %s: %T: %s", n.Pos(), n, why)
}

func (l *shapeLoader) named(name string) *namedShape {
	name = strings.TrimPrefix(name, "#")
	n := l.definitions[name]
	if n == nil {
		n = &namedShape{name: name}
		l.definitions[name] = n
	}
	return n
}

func (l *shapeLoader) expression(e ast.Expr) (shape, error) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return l.expression(e.X)
	case *ast.Ident:
		return l.ident(e)
	case *ast.BasicLit:
		return literalOf(e)
	case *ast.UnaryExpr:
		return l.unary(e)
	case *ast.BinaryExpr:
		return l.binary(e)
	case *ast.CallExpr:
		return l.call(e)
	case *ast.ListLit:
		return l.list(e)
	case *ast.StructLit:
		return l.structure(e)
	}
	return nil, odd(e, "the shape does not understand this expression")
}

func (l *shapeLoader) ident(e *ast.Ident) (shape, error) {
	switch e.Name {
	case "_":
		return anyShape{}, nil
	case "string", "bool", "int", "number":
		return kindShape{name: e.Name}, nil
	case "int32":
		return kindShape{name: "int", bits: 32}, nil
	case "int64":
		return kindShape{name: "int", bits: 64}, nil
	}
	if strings.HasPrefix(e.Name, "#") {
		return l.named(e.Name), nil
	}
	return nil, odd(e, "the shape does not know "+e.Name)
}

func literalOf(e *ast.BasicLit) (shape, error) {
	switch e.Kind {
	case token.STRING:
		text, err := literal.Unquote(e.Value)
		return literalShape{kind: stringNode, text: text}, err
	case token.INT:
		v, err := strconv.ParseInt(e.Value, 0, 64)
		return literalShape{kind: intNode, text: strconv.FormatInt(v, 10)}, err
	case token.TRUE, token.FALSE:
		return literalShape{kind: boolNode, text: e.Value}, nil
	}
	return nil, odd(e, "the shape does not understand this literal")
}

func (l *shapeLoader) unary(e *ast.UnaryExpr) (shape, error) {
	operand, err := l.expression(e.X)
	if err != nil {
		return nil, err
	}
	value, ok := operand.(literalShape)
	if !ok {
		return nil, odd(e, "bounds and patterns are literals")
	}
	switch e.Op {
	case token.MAT, token.NMAT:
		expression, err := regexp.Compile(value.text)
		if err != nil {
			return nil, odd(e, err.Error())
		}
		return patternShape{expression: expression, not: e.Op == token.NMAT}, nil
	case token.NEQ, token.GEQ, token.LEQ, token.GTR, token.LSS:
		if value.kind == stringNode {
			if e.Op != token.NEQ {
				return nil, odd(e, "texts are not ordered here")
			}
			return boundShape{isText: true, text: value.text}, nil
		}
		number, err := strconv.ParseFloat(value.text, 64)
		return boundShape{op: e.Op.String(), number: number}, err
	}
	return nil, odd(e, "the shape does not understand "+e.Op.String())
}

func (l *shapeLoader) binary(e *ast.BinaryExpr) (shape, error) {
	switch e.Op {
	case token.AND:
		var all allShape
		for _, x := range [...]ast.Expr{e.X, e.Y} {
			s, err := l.expression(x)
			if err != nil {
				return nil, err
			}
			if inner, ok := s.(allShape); ok {
				all.parts = append(all.parts, inner.parts...)
				continue
			}
			all.parts = append(all.parts, s)
		}
		return all, nil
	case token.OR:
		var any anyOfShape
		for _, x := range [...]ast.Expr{e.X, e.Y} {
			if err := l.alternative(&any, x); err != nil {
				return nil, err
			}
		}
		return any, nil
	}
	return nil, odd(e, "the shape does not understand "+e.Op.String())
}

func (l *shapeLoader) alternative(any *anyOfShape, x ast.Expr) error {
	marked := false
	if u, ok := x.(*ast.UnaryExpr); ok && u.Op == token.MUL {
		x, marked = u.X, true
	}
	s, err := l.expression(x)
	if err != nil {
		return err
	}
	if inner, ok := s.(anyOfShape); ok {
		any.parts = append(any.parts, inner.parts...)
		if inner.usual != nil {
			any.usual = inner.usual
		}
		return nil
	}
	any.parts = append(any.parts, s)
	if marked {
		any.usual = s
	}
	return nil
}

func (l *shapeLoader) call(e *ast.CallExpr) (shape, error) {
	selector, ok := e.Fun.(*ast.SelectorExpr)
	if !ok || len(e.Args) != 1 {
		return nil, odd(e, "the shape does not understand this call")
	}
	of, _, _ := ast.LabelName(selector.Sel)
	limit, err := l.expression(e.Args[0])
	if err != nil {
		return nil, err
	}
	number, ok := limit.(literalShape)
	if pkg, isIdent := selector.X.(*ast.Ident); !ok || !isIdent || pkg.Name != "strings" {
		return nil, odd(e, "the shape does not understand this call")
	}
	n, err := strconv.Atoi(number.text)
	if err != nil {
		return nil, odd(e, err.Error())
	}
	switch of {
	case "MaxRunes":
		return runesShape{limit: n}, nil
	case "MinRunes":
		return runesShape{limit: n, least: true}, nil
	}
	return nil, odd(e, "the shape does not know strings."+of)
}

func (l *shapeLoader) list(e *ast.ListLit) (shape, error) {
	out := &listShape{}
	for _, x := range e.Elts {
		if rest, ok := x.(*ast.Ellipsis); ok {
			if rest.Type == nil {
				out.rest = anyShape{}
				continue
			}
			s, err := l.expression(rest.Type)
			if err != nil {
				return nil, err
			}
			out.rest = s
			continue
		}
		s, err := l.expression(x)
		if err != nil {
			return nil, err
		}
		out.first = append(out.first, s)
	}
	return out, nil
}

func (l *shapeLoader) structure(e *ast.StructLit) (shape, error) {
	out := &structShape{}
	l.structs = append(l.structs, out)
	for _, d := range e.Elts {
		var err error
		switch d := d.(type) {
		case *ast.CommentGroup:
		case *ast.Ellipsis:
			out.open = true
		case *ast.EmbedDecl:
			err = l.embed(out, d)
		case *ast.Field:
			err = l.field(out, d)
		default:
			err = odd(d, "the shape does not understand this declaration")
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// embed adds the fields of another definition, or a choice among fields.
func (l *shapeLoader) embed(out *structShape, d *ast.EmbedDecl) error {
	switch e := d.Expr.(type) {
	case *ast.Ident:
		if strings.HasPrefix(e.Name, "#") {
			out.embedded = append(out.embedded, l.named(e.Name))
			return nil
		}
	case *ast.BinaryExpr:
		if e.Op == token.OR {
			c := choice{least: 1}
			if err := l.choose(out, &c, e); err != nil {
				return err
			}
			out.choices = append(out.choices, c)
			return nil
		}
	}
	return odd(d, "the shape does not understand this embedding")
}

// choose reads {a!: …} | {b!: …} | …, of which exactly one is there; with *{}
// among them, at most one.
func (l *shapeLoader) choose(out *structShape, c *choice, e ast.Expr) error {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		if e.Op != token.OR {
			return odd(e, "a choice is made of alternatives")
		}
		if err := l.choose(out, c, e.X); err != nil {
			return err
		}
		return l.choose(out, c, e.Y)
	case *ast.UnaryExpr:
		if none, ok := e.X.(*ast.StructLit); ok && e.Op == token.MUL && len(none.Elts) == 0 {
			c.least = 0
			return nil
		}
	case *ast.StructLit:
		one := &structShape{}
		for _, d := range e.Elts {
			if f, ok := d.(*ast.Field); ok {
				if err := l.field(one, f); err != nil {
					return err
				}
			}
		}
		if len(one.fields) == 1 && one.fields[0].required {
			one.fields[0].required = false
			c.names = append(c.names, one.fields[0].name)
			out.fields = append(out.fields, one.fields[0])
			return nil
		}
	}
	return odd(e, "an alternative of a choice has one required field")
}

// resolve adds the fields of what is embedded, once every definition is read.
func (s *structShape) resolve() error {
	if s.byName != nil {
		return nil
	}
	s.byName = make(map[string]*fieldShape, len(s.fields))
	for _, n := range s.embedded {
		inner, ok := n.shape.(*structShape)
		if !ok {
			return fmt.Errorf("definitions: #%s is embedded and no struct", n.name)
		}
		if err := inner.resolve(); err != nil {
			return err
		}
		s.fields = append(s.fields, inner.fields...)
		s.patterns = append(s.patterns, inner.patterns...)
		s.choices = append(s.choices, inner.choices...)
	}
	for _, f := range s.fields {
		if s.byName[f.name] != nil {
			return fmt.Errorf("definitions: field %s stands twice in one struct", f.name)
		}
		s.byName[f.name] = f
	}
	return nil
}

func (l *shapeLoader) field(out *structShape, d *ast.Field) error {
	value, err := l.expression(d.Value)
	if err != nil {
		return err
	}
	f := &fieldShape{shape: value, required: d.Constraint == token.NOT, doc: docOf(d)}
	if err := attributes(f, d.Attrs); err != nil {
		return err
	}
	if list, ok := d.Label.(*ast.ListLit); ok {
		if len(list.Elts) != 1 {
			return odd(d, "a pattern has one expression")
		}
		if f.key, err = l.expression(list.Elts[0]); err != nil {
			return err
		}
		out.patterns = append(out.patterns, f)
		return nil
	}
	name, _, err := ast.LabelName(d.Label)
	if err != nil {
		return odd(d, err.Error())
	}
	if d.Constraint != token.NOT && d.Constraint != token.OPTION {
		return odd(d, "every field is required or optional")
	}
	f.name = name
	out.fields = append(out.fields, f)
	return nil
}

func docOf(d *ast.Field) string {
	var lines []string
	for _, g := range ast.Comments(d) {
		if g.Doc {
			for _, c := range g.List {
				lines = append(lines, strings.TrimSpace(strings.TrimPrefix(c.Text, "//")))
			}
		}
	}
	return strings.Join(lines, " ")
}

// attributes reads @pawl(word, "text").
func attributes(f *fieldShape, list []*ast.Attribute) error {
	for _, a := range list {
		key, body := a.Split()
		if key != "pawl" {
			return odd(a, "attributes are @pawl(…)")
		}
		word, quoted, ok := strings.Cut(body, ",")
		text, err := strconv.Unquote(strings.TrimSpace(quoted))
		if !ok || err != nil {
			return odd(a, `want @pawl(word, "text")`)
		}
		switch word {
		case "means":
			f.means = text
			continue
		case "differs":
			f.differs = text
			continue
		case "warn":
			f.support = warned
		case "dropped":
			f.support = dropped
		case "ignored":
			f.support = ignored
		case "unsupported":
			f.support = unsupported
		default:
			return odd(a, "the word is means, differs, warn, dropped, ignored or unsupported")
		}
		f.note = text
	}
	return nil
}
