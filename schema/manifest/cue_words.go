package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/errors"
	"cuelang.org/go/cue/token"

	"github.com/pawl-project/pawl/schema"
)

// An openPath says whether the values at a path may stand in a fault: whether
// nothing there can be of a Secret. A nil one says no.
type openPath func(path []string) bool

// open says whether a value of the text may be told.
func (o openPath) open(path []string) bool { return o != nil && o(path) }

// cueWords is what an error of CUE says. Its words are CUE's own format and
// values of the text, which are told only where they may be.
func cueWords(e errors.Error, open openPath) string {
	format, args := e.Msg()
	if !open.open(e.Path()) {
		return sealedWords(format, args)
	}
	problem, _, _ := strings.Cut(strings.TrimSpace(fmt.Sprintf(format, args...)), "\n")
	return problem
}

// sealed are what CUE's errors come to without the values in them, by how their
// format begins.
var sealed = []struct{ format, problem string }{
	{"conflicting values", "two values conflict"},
	{"invalid value", "the value is not allowed"},
	{"incomplete value", "the value is not complete"},
	{"cannot use", "the value has the wrong type"},
	{"invalid operand", "an operand has the wrong type"},
	{"reference %q not found", "a name is not known; text must be in quotes"},
	{"undefined field", "a field is not there"},
	{"field not allowed", "field not allowed"},
	{"field is required but not present", "field is required but not present"},
	{"structural cycle", "structural cycle"},
	{"string literal not terminated", "string literal not terminated"},
	{"missing ','", "a comma is missing"},
	{"illegal character", "a character that cannot stand here"},
	{"import failed", "an import cannot be found"},
}

// sealedWords says what an error is about without a value of the text.
func sealedWords(format string, args []any) string {
	if emptyOr.MatchString(fmt.Sprintf(format, args...)) {
		return "is none of what is allowed here"
	}
	if what, ok := expected(format, args); ok {
		return what
	}
	for _, s := range sealed {
		if strings.HasPrefix(format, s.format) {
			return s.problem
		}
	}
	return "cannot be read as CUE"
}

// expected is the parser's "expected X, found Y", of which X is CUE's own word
// and Y is only told when it is the kind of a token.
func expected(format string, args []any) (string, bool) {
	if !strings.HasPrefix(format, "expected %s") || len(args) == 0 {
		return "", false
	}
	what := fmt.Sprintf("expected %v", args[0])
	if len(args) > 1 {
		if t, ok := args[1].(token.Token); ok {
			what += fmt.Sprintf(", found '%s'", t)
		}
	}
	return what, true
}

// secretWord is how a text of CUE names the kind: "Secret", #Secret, Secret: {…}.
var secretWord = regexp.MustCompile(`\bSecrets?\b`)

// openIn is for the value that files make: open is what stands in an object that
// says what it is, of a kind that is known and no Secret, when no Secret is
// spoken of beside it whose values it could have taken.
func openIn(v cue.Value, files []childFile) openPath {
	for _, f := range files {
		if secretWord.Match(f.Content) {
			return nil
		}
	}
	return func(path []string) bool {
		v := v
		for i := 0; ; i++ {
			if kind, err := v.LookupPath(cue.ParsePath("kind")).String(); err == nil {
				return openKind(kind)
			}
			if i == len(path) {
				return false
			}
			if v = v.LookupPath(cue.MakePath(selector(v, path[i]))); !v.Exists() {
				return false
			}
		}
	}
}

// selector is a step of an error's path.
func selector(v cue.Value, step string) cue.Selector {
	if i, err := strconv.Atoi(step); err == nil && v.IncompleteKind() == cue.ListKind {
		return cue.Index(i)
	}
	if name, err := strconv.Unquote(step); err == nil {
		return cue.Str(name)
	}
	if strings.HasPrefix(step, "#") && !strings.ContainsAny(step[1:], "#_") {
		return cue.Def(step)
	}
	return cue.Str(step)
}

// openKind says whether the values of a kind may be told. What is not known may
// be a Secret that is misspelt.
func openKind(kind string) bool {
	return slices.ContainsFunc(schema.Kinds(), func(info schema.KindInfo) bool {
		return info.GVK.Kind == kind && !maySeal(info.Kind)
	})
}

// openConstraint is for the cluster's own constraints: open is what they say of
// any object and of a kind that is no Secret.
func openConstraint(path []string) bool {
	return len(path) > 0 && (path[0] == "Any" || openKind(path[0]))
}

// packageFiles are those of the files that one package is made of.
func packageFiles(files []childFile, parsed []*ast.File) []childFile {
	return slices.DeleteFunc(slices.Clone(files), func(f childFile) bool {
		return !slices.ContainsFunc(parsed, func(p *ast.File) bool { return p.Filename == f.Path })
	})
}
