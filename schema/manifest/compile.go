package manifest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/pawl-project/pawl/schema"
)

// Options of a Compiler.
type Options struct {
	// Child is the argv of the process that evaluates CUE from a repository; it
	// must call ChildMain first. Default: this executable again.
	Child []string
}

// A Compiler turns trees into objects and remembers, by the hash of each file,
// what it made of it. It may be used by several goroutines at once.
type Compiler struct {
	child *childRunner
	files *cache
	last  assembly
	// large admits one large file at a time: parsed YAML takes a hundred times its text.
	large *semaphore.Weighted
}

// NewCompiler returns a Compiler with an empty cache. It starts nothing; a
// child process lives only within Compile, and only for trees with CUE in them.
func NewCompiler(o Options) *Compiler {
	return &Compiler{
		child: newChildRunner(o.Child),
		files: newCache(),
		large: semaphore.NewWeighted(1),
	}
}

// A Result is an accepted tree.
type Result struct {
	// Objects are defaulted, sorted by key, and carry schema.AnnotationSource.
	// They are shared with the Compiler's cache and with other Results:
	// callers must copy before they change anything.
	Objects []schema.Object
	// Warnings are what was accepted all the same, in the order of files and lines.
	Warnings []schema.Fault
	// Files counts the files that have objects in them.
	Files int
}

// Compile reads every manifest of a tree. The error is a *schema.Refusal with
// all faults when the tree is at fault, else what kept it from being read.
func (c *Compiler) Compile(ctx context.Context, tree schema.Tree) (*Result, error) {
	work, faults := selectFiles(tree.Files())
	results := make([]*fileResult, len(work.manifests))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, f := range work.manifests {
		if r := c.files.get(f.Path, f.Blob); r != nil {
			results[i] = r
			continue
		}
		group.Go(func() error {
			r, err := c.compileFile(gctx, tree, f)
			if err != nil {
				return err
			}
			r.path, r.blob = f.Path, f.Blob
			results[i] = r
			c.files.put(f.Path, f.Blob, r, f.Size)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	evaluated, err := c.evaluate(ctx, tree, work.instances)
	if err != nil {
		return nil, err
	}
	results = append(results, evaluated...)
	results, err = c.constrain(ctx, tree, work.constraints, results)
	if err != nil {
		return nil, err
	}
	return c.last.gather(results, faults)
}

// A fileResult is what one file gives, whatever else is in the tree.
type fileResult struct {
	path, blob string // of the file, or what stands for them
	objects    []compiled
	faults     []schema.Fault
	warnings   []schema.Fault
}

// A compiled object and where it stands.
type compiled struct {
	object schema.Object
	key    schema.ObjectKey
	title  string // as faults name it
	file   string
	at     position
}

// selection is what of a tree is read, and how.
type selection struct {
	manifests   []schema.TreeFile   // YAML and JSON
	instances   [][]schema.TreeFile // CUE manifests by instance directory
	constraints []schema.TreeFile   // cluster.cue and policy/*.cue
}

// selectFiles picks the files that count and refuses what may not be in a tree.
func selectFiles(files []schema.TreeFile) (selection, []schema.Fault) {
	var s selection
	var faults []schema.Fault
	refuse := func(f schema.TreeFile, problem, remedy string) {
		if len(faults) < maxFaults {
			faults = append(faults, schema.Fault{File: f.Path, Problem: problem, Remedy: remedy})
		}
	}
	var total int64
	directories := map[string]int{}
	for _, f := range files {
		if hidden(f.Path) {
			continue
		}
		switch f.Mode {
		case schema.ModeSymlink:
			refuse(f, "is a symbolic link", "put a regular file in its place")
			continue
		case schema.ModeSubmodule:
			refuse(f, "is a submodule", "copy its manifests into the repository")
			continue
		}
		base := path.Base(f.Path)
		if isKustomization(base) {
			refuse(f, "kustomize is not built by Pawl yet", "commit the output of `kustomize build` instead")
			continue
		}
		extension := path.Ext(base)
		if extension != ".yaml" && extension != ".yml" && extension != ".json" && extension != ".cue" {
			continue
		}
		if f.Size > maxFileBytes {
			refuse(f, fmt.Sprintf("has %d bytes, the limit of a manifest is %d", f.Size, int64(maxFileBytes)), "split it")
			continue
		}
		total += f.Size
		switch {
		case extension != ".cue":
			s.manifests = append(s.manifests, f)
		case isConstraint(f.Path):
			s.constraints = append(s.constraints, f)
		default:
			dir := path.Dir(f.Path)
			i, known := directories[dir]
			if !known {
				i = len(s.instances)
				directories[dir] = i
				s.instances = append(s.instances, nil)
			}
			s.instances[i] = append(s.instances[i], f)
		}
	}
	if total > maxTreeBytes {
		faults = append(faults, schema.Fault{Problem: fmt.Sprintf("the manifests have %d bytes together, the limit is %d", total, int64(maxTreeBytes))})
		return selection{}, faults
	}
	return s, faults
}

// hidden says whether a path or one of its directories begins with a dot.
func hidden(p string) bool { return strings.HasPrefix(p, ".") || strings.Contains(p, "/.") }

func isKustomization(base string) bool {
	return base == "kustomization.yaml" || base == "kustomization.yml" || base == "Kustomization"
}

// isConstraint says whether a CUE file holds the cluster's own constraints.
func isConstraint(p string) bool { return p == "cluster.cue" || path.Dir(p) == "policy" }

// compileFile reads and compiles one YAML or JSON file. Its error means that
// the file could not be read at all.
func (c *Compiler) compileFile(ctx context.Context, tree schema.Tree, f schema.TreeFile) (*fileResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	const large = 128 << 10
	if f.Size > large {
		if err := c.large.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		defer c.large.Release(1)
	}
	content, err := tree.Read(f, maxFileBytes)
	if errors.Is(err, schema.ErrRefused) {
		return &fileResult{faults: []schema.Fault{{File: f.Path, Problem: "cannot be read: " + err.Error()}}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", f.Path, err)
	}
	return compileText(f.Path, content), nil
}

// compileText compiles the content of one YAML or JSON file.
func compileText(file string, content []byte) *fileResult {
	faults := &faultList{}
	documents := parse(file, content, faults)
	return compileDocuments(file, documents, faults)
}

func parse(file string, content []byte, faults *faultList) []document {
	if path.Ext(file) == ".json" {
		return parseJSON(file, content, faults)
	}
	return parseYAML(file, content, faults)
}

// compileDocuments makes the objects of one file.
func compileDocuments(file string, documents []document, faults *faultList) *fileResult {
	r := &fileResult{warnings: faults.warnings}
	roots := flatten(documents, faults)
	if len(roots) > maxFileObjects {
		faults.at(file, position{}, fmt.Sprintf("has %d objects, the limit is %d", len(roots), maxFileObjects), "split the file")
		roots = nil
	}
	for _, d := range roots {
		o := compileObject(d)
		r.warnings = append(r.warnings, o.warnings.done(d.file)...)
		for _, f := range o.faults.done(d.file) {
			faults.add(f)
		}
		if o.object != nil {
			r.objects = append(r.objects, compiled{object: o.object, key: schema.KeyOf(o.object), title: o.title, file: o.file, at: o.root.at})
		}
	}
	r.faults = faults.done(file)
	return r
}
