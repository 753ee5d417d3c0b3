package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/build"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/errors"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"

	"github.com/pawl-project/pawl/schema"
)

// This file runs in the child only: it hands text from the repository to CUE's
// evaluator, which knows no limits.

// ownFiles marks positions in Pawl's definitions, which mean nothing to the
// author of a manifest.
const ownFiles = "pawl:"

// definitionsIn builds Pawl's definitions, so that a repository's CUE can name them.
func definitionsIn(ctx *cue.Context) cue.Value {
	instance := build.NewContext().NewInstance(ownFiles, nil)
	names, err := fs.Glob(schema.Definitions, "*.cue")
	if err != nil {
		panic(err)
	}
	for _, name := range names {
		content, err := fs.ReadFile(schema.Definitions, name)
		if err != nil {
			panic(err)
		}
		file, err := parser.ParseFile(ownFiles+name, content, parser.ParseComments)
		if err != nil {
			panic(err)
		}
		if err := instance.AddSyntax(file); err != nil {
			panic(err)
		}
	}
	return ctx.BuildInstance(instance)
}

// buildFiles makes one value of files. Imports are CUE's own packages only.
func buildFiles(ctx *cue.Context, definitions cue.Value, files []*ast.File) cue.Value {
	instance := build.NewContext().NewInstance(".", nil)
	for _, f := range files {
		if err := instance.AddSyntax(f); err != nil {
			return ctx.BuildInstance(instance)
		}
	}
	return ctx.BuildInstance(instance, cue.Scope(definitions))
}

// parseFile reads one file and refuses imports that would reach out.
func parseFile(f childFile) (*ast.File, []schema.Fault) {
	file, err := parser.ParseFile(f.Path, f.Content, parser.ParseComments)
	if err != nil {
		return nil, cueFaults(err, f.Path, nil)
	}
	var faults []schema.Fault
	for spec := range file.ImportSpecs() {
		name, err := strconv.Unquote(spec.Path.Value)
		first, _, _ := strings.Cut(name, "/")
		if err != nil || strings.Contains(first, ".") || first == "tool" {
			at := spec.Pos().Position()
			faults = append(faults, schema.Fault{File: f.Path, Line: at.Line, Column: at.Column,
				Problem: "imports " + quote(name), Remedy: "only CUE's own packages can be imported, such as strings and list"})
		}
	}
	return file, faults
}

// evaluateInstance evaluates the files of one directory.
func evaluateInstance(files []childFile) childResult {
	var out childResult
	packages := map[string][]*ast.File{}
	var order []string
	for _, f := range files {
		file, faults := parseFile(f)
		if len(faults) > 0 {
			out.Faults = append(out.Faults, faults...)
			continue
		}
		key := "package " + file.PackageName()
		if file.PackageName() == "" {
			key = "file " + f.Path
		}
		if packages[key] == nil {
			order = append(order, key)
		}
		packages[key] = append(packages[key], file)
	}
	if len(out.Faults) > 0 {
		return out
	}
	for _, key := range order {
		ctx := cuecontext.New()
		value := buildFiles(ctx, definitionsIn(ctx), packages[key])
		file := packages[key][0].Filename
		open := openIn(value, packageFiles(files, packages[key]))
		if err := value.Err(); err != nil {
			out.Faults = append(out.Faults, cueFaults(err, file, open)...)
			continue
		}
		e := extractor{file: file, open: open}
		e.objects(value, 0)
		out.Documents = append(out.Documents, e.documents...)
		out.Faults = append(out.Faults, e.faults...)
	}
	return out
}

// An extractor finds the objects in a value.
type extractor struct {
	file      string
	open      openPath
	documents []*wireNode
	faults    []schema.Fault
}

// objects takes a struct that says what it is, and looks into others and lists.
func (e *extractor) objects(v cue.Value, depth int) {
	if depth > maxDepth {
		return
	}
	switch v.IncompleteKind() {
	case cue.StructKind:
		if isObject(v) {
			if err := v.Validate(cue.Concrete(true), cue.Final()); err != nil {
				e.faults = append(e.faults, cueFaults(err, e.file, e.open)...)
				return
			}
			e.documents = append(e.documents, wire(v, 0))
			return
		}
		fields, err := v.Fields()
		if err != nil {
			e.faults = append(e.faults, cueFaults(err, e.file, e.open)...)
			return
		}
		for fields.Next() {
			e.objects(fields.Value(), depth+1)
		}
	case cue.ListKind:
		items, err := v.List()
		if err != nil {
			e.faults = append(e.faults, cueFaults(err, e.file, e.open)...)
			return
		}
		for items.Next() {
			e.objects(items.Value(), depth+1)
		}
	case cue.BottomKind:
		if err := v.Err(); err != nil {
			e.faults = append(e.faults, cueFaults(err, e.file, e.open)...)
		}
	}
}

// isObject says whether a struct means to be an object, even a faulty one.
func isObject(v cue.Value) bool {
	for _, name := range []string{"apiVersion", "kind", "metadata"} {
		if v.LookupPath(cue.MakePath(cue.Str(name))).Exists() {
			return true
		}
	}
	return false
}

// wire turns a concrete value into nodes with the repository's positions.
func wire(v cue.Value, depth int) *wireNode {
	w := &wireNode{}
	if at := v.Pos().Position(); at.IsValid() && !strings.HasPrefix(at.Filename, ownFiles) {
		w.File, w.Line, w.Column = at.Filename, at.Line, at.Column
	}
	if d, ok := v.Default(); ok {
		v = d
	}
	if depth > maxDepth {
		return w
	}
	switch v.Kind() {
	case cue.StructKind:
		w.Kind = mapNode
		if fields, err := v.Fields(); err == nil {
			for fields.Next() {
				w.Keys = append(w.Keys, fields.Selector().Unquoted())
				w.Values = append(w.Values, wire(fields.Value(), depth+1))
			}
		}
	case cue.ListKind:
		w.Kind = listNode
		if items, err := v.List(); err == nil {
			for items.Next() {
				w.Values = append(w.Values, wire(items.Value(), depth+1))
			}
		}
	case cue.StringKind:
		w.Kind = stringNode
		w.Text, _ = v.String()
	case cue.BytesKind:
		w.Kind = stringNode
		if raw, err := v.MarshalJSON(); err == nil {
			_ = json.Unmarshal(raw, &w.Text) // base64, as JSON writes bytes
		}
	case cue.BoolKind, cue.IntKind, cue.FloatKind:
		raw, err := v.MarshalJSON()
		if err != nil {
			return w
		}
		w.Text = string(raw)
		w.Kind = boolNode
		if v.Kind() != cue.BoolKind {
			n := &node{}
			if numberNode(n, w.Text) == nil {
				w.Kind, w.Text = n.kind, n.text
			}
		}
	}
	return w
}

// constraints are cluster.cue and policy/*.cue as one value.
type constraints struct {
	ctx    *cue.Context
	value  cue.Value
	file   string
	faults []schema.Fault
}

func newConstraints(files []childFile) *constraints {
	c := &constraints{ctx: cuecontext.New()}
	var parsed []*ast.File
	for _, f := range files {
		file, faults := parseFile(f)
		c.faults = append(c.faults, faults...)
		if file != nil {
			parsed = append(parsed, file)
		}
	}
	if len(c.faults) > 0 || len(parsed) == 0 {
		return c
	}
	// They constrain one cluster together, whatever they call their package.
	for _, f := range parsed {
		for _, d := range f.Decls {
			if p, ok := d.(*ast.Package); ok {
				p.Name = ast.NewIdent("cluster")
			}
		}
	}
	for _, f := range parsed {
		if f.PackageName() == "" {
			f.Decls = append([]ast.Decl{&ast.Package{Name: ast.NewIdent("cluster")}}, f.Decls...)
		}
	}
	c.file = parsed[0].Filename
	c.value = buildFiles(c.ctx, definitionsIn(c.ctx), parsed)
	if err := c.value.Err(); err != nil {
		c.faults = cueFaults(err, c.file, openConstraint)
		return c
	}
	c.names()
	return c
}

// names refuses top-level fields that constrain nothing: a constraint on
// "deployment" would otherwise hold nobody back.
func (c *constraints) names() {
	fields, err := c.value.Fields()
	if err != nil {
		c.faults = cueFaults(err, c.file, openConstraint)
		return
	}
	known := []string{"Any"}
	for _, info := range schema.Kinds() {
		if info.Manifest {
			known = append(known, info.GVK.Kind)
		}
	}
	for fields.Next() {
		name := fields.Selector().Unquoted()
		if slices.Contains(known, name) {
			continue
		}
		remedy := "top-level fields are named like a kind, or Any; hidden fields (_name) and definitions are free"
		if guess := nearest(name, known); guess != "" {
			remedy = "did you mean " + guess + "?"
		}
		at := fields.Value().Pos().Position()
		c.faults = append(c.faults, schema.Fault{File: at.Filename, Line: at.Line, Column: at.Column, Field: name, Problem: "constrains no kind that Pawl knows", Remedy: remedy})
	}
}

// apply holds one object against the constraints of its kind.
func (c *constraints) apply(o childObject) childResult {
	if len(c.faults) > 0 {
		return childResult{Faults: c.faults}
	}
	object := c.ctx.CompileBytes(o.JSON, cue.Filename(ownFiles+"object"))
	unified := object
	for _, name := range []string{o.Kind, "Any"} {
		if k := c.value.LookupPath(cue.MakePath(cue.Str(name))); k.Exists() {
			unified = unified.Unify(k)
		}
	}
	if err := unified.Validate(cue.Concrete(true), cue.Final()); err != nil {
		return childResult{Broken: brokenBy(err, o.Kind)}
	}
	raw, err := unified.MarshalJSON()
	if err != nil {
		return childResult{Broken: brokenBy(err, o.Kind)}
	}
	if sameJSON(raw, o.JSON) {
		return childResult{}
	}
	return childResult{Changed: raw}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, err := json.Marshal(x)
	if err != nil {
		return false
	}
	q, err := json.Marshal(y)
	return err == nil && bytes.Equal(p, q)
}

// brokenBy lists what CUE finds wrong with an object.
func brokenBy(err error, kind string) []broken {
	var out []broken
	for _, f := range folded(err, func([]string) bool { return openKind(kind) }) {
		b := broken{Path: f.path, Problem: f.problem}
		if f.at.IsValid() {
			b.Where = fmt.Sprintf("%s:%d", path.Clean(f.at.Filename), f.at.Line)
		}
		out = append(out, b)
	}
	return out
}

// cueFaults puts an error of CUE into faults at places of the repository; file
// stands in where CUE gives no place. Values are told where they are open.
func cueFaults(err error, file string, open openPath) []schema.Fault {
	var out []schema.Fault
	for _, f := range folded(err, open) {
		fault := schema.Fault{File: file, Field: strings.Join(f.path, "."), Problem: f.problem}
		if f.at.IsValid() {
			fault.File, fault.Line, fault.Column = f.at.Filename, f.at.Line, f.at.Column
		}
		out = append(out, fault)
	}
	return out
}

// A foldedError is what CUE says of one place, its many words about a failed
// disjunction made into one.
type foldedError struct {
	path    []string
	problem string
	at      token.Position // in the repository; not valid when CUE names none
	choices []string
}

var (
	conflict = regexp.MustCompile(`^conflicting values (.+) and (.+)$`)
	emptyOr  = regexp.MustCompile(`^\d+ errors in empty disjunction`)
)

func folded(err error, open openPath) []*foldedError {
	var out []*foldedError
	byPath := map[string]*foldedError{}
	for _, e := range errors.Errors(err) {
		problem := cueWords(e, open)
		key := strings.Join(e.Path(), "\x00")
		f := byPath[key]
		if f == nil {
			f = &foldedError{path: e.Path(), problem: problem, at: repositoryPosition(e)}
			byPath[key] = f
			out = append(out, f)
			continue
		}
		if !f.at.IsValid() {
			f.at = repositoryPosition(e)
		}
		if emptyOr.MatchString(f.problem) {
			if m := conflict.FindStringSubmatch(problem); m != nil {
				f.choices = append(f.choices, m[1])
			}
		}
	}
	for _, f := range out {
		switch {
		case len(f.choices) > 0:
			f.problem = "must be one of " + strings.Join(unquoteAll(f.choices), ", ")
		case emptyOr.MatchString(f.problem):
			f.problem = "is none of what is allowed here"
		}
	}
	return out
}

func unquoteAll(words []string) []string {
	out := make([]string, 0, len(words))
	for _, w := range words {
		if u, err := strconv.Unquote(w); err == nil {
			w = u
		}
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// repositoryPosition finds the first place of an error that is not in Pawl's
// own definitions.
func repositoryPosition(e errors.Error) token.Position {
	for _, p := range append([]token.Pos{e.Position()}, e.InputPositions()...) {
		if at := p.Position(); at.IsValid() && !strings.HasPrefix(at.Filename, ownFiles) {
			return at
		}
	}
	return token.Position{}
}
