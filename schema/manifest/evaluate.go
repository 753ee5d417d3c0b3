package manifest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/pawl-project/pawl/schema"
)

// How much one child is given, so that its limits are about one thing going
// wrong and not about there being much of it.
const (
	childInstances = 32
	childObjects   = 500
	childInput     = 8 << 20 // bytes
)

// evaluate compiles the CUE manifests, a directory at a time, in children.
func (c *Compiler) evaluate(ctx context.Context, tree schema.Tree, instances [][]schema.TreeFile) ([]*fileResult, error) {
	results := make([]*fileResult, len(instances))
	var waiting []int
	for i, files := range instances {
		if results[i] = c.files.get(instanceKey(files)); results[i] == nil {
			waiting = append(waiting, i)
		}
	}
	deaths := 0
	for len(waiting) > 0 {
		if deaths >= childDeaths {
			for _, i := range waiting {
				results[i] = instanceFault(instances[i], "is not evaluated: too many others of this commit could not be")
			}
			break
		}
		batch := waiting[:min(len(waiting), childInstances)]
		request := &childRequest{}
		size := int64(0)
		for n, i := range batch {
			read, bytes, err := readFiles(tree, instances[i])
			if err != nil {
				return nil, err
			}
			if size += bytes; size > childInput && n > 0 {
				batch = batch[:n]
				break
			}
			request.Instances = append(request.Instances, childInstance{Files: read})
		}
		answers, err := c.child.run(ctx, request)
		for _, a := range answers {
			if a.Index < 0 || a.Index >= len(batch) {
				return nil, fmt.Errorf("the CUE child answers what was not asked")
			}
			i := batch[a.Index]
			results[i] = instanceResult(instances[i], a)
			c.remember(instances[i], results[i])
		}
		var died *errChildDied
		switch {
		case errors.As(err, &died):
			deaths++
			i := batch[max(died.begun, 0)]
			// Not remembered: on an idle machine the same CUE may stay within its time.
			results[i] = instanceFault(instances[i], "cannot be evaluated: "+died.why)
		case err != nil:
			return nil, err
		}
		var rest []int
		for _, i := range waiting {
			if results[i] == nil {
				rest = append(rest, i)
			}
		}
		waiting = rest
	}
	return results, nil
}

func (c *Compiler) remember(files []schema.TreeFile, r *fileResult) {
	path, blob := instanceKey(files)
	r.path, r.blob = path, blob
	var size int64
	for _, f := range files {
		size += f.Size
	}
	c.files.put(path, blob, r, size)
}

// instanceKey names the files of a directory and their contents.
func instanceKey(files []schema.TreeFile) (path, blob string) {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %q\n", f.Path, f.Blob)
	}
	return "cue", hex.EncodeToString(h.Sum(nil))
}

func readFiles(tree schema.Tree, files []schema.TreeFile) ([]childFile, int64, error) {
	var out []childFile
	var size int64
	for _, f := range files {
		content, err := tree.Read(f, maxFileBytes)
		if err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", f.Path, err)
		}
		size += int64(len(content))
		out = append(out, childFile{Path: f.Path, Content: content})
	}
	return out, size, nil
}

func instanceFault(files []schema.TreeFile, problem string) *fileResult {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Path
	}
	fault := schema.Fault{File: names[0], Problem: problem}
	if len(names) > 1 {
		fault.Problem += " (together with " + strings.Join(names[1:min(len(names), 10)], ", ") + ")"
	}
	return &fileResult{faults: []schema.Fault{fault}}
}

// instanceResult compiles the objects that a directory's CUE evaluates to.
func instanceResult(files []schema.TreeFile, a childResult) *fileResult {
	faults := &faultList{}
	for _, f := range a.Faults {
		faults.add(f)
	}
	file := files[0].Path
	var documents []document
	for _, w := range a.Documents {
		root := w.node(position{})
		if root.at.file != "" {
			file = root.at.file
		}
		documents = append(documents, document{file: file, root: root})
	}
	return compileDocuments(files[0].Path, documents, faults)
}

// constrain holds every object against the cluster's own constraints. What was
// held against the same ones before is taken from the cache.
func (c *Compiler) constrain(ctx context.Context, tree schema.Tree, files []schema.TreeFile, results []*fileResult) ([]*fileResult, error) {
	if len(files) == 0 {
		return results, nil
	}
	read, size, err := readFiles(tree, files)
	if err != nil {
		return nil, err
	}
	if size > childInput {
		return append(results, instanceFault(files, fmt.Sprintf("have %d bytes together, the limit is %d", size, childInput))), nil
	}
	_, hash := instanceKey(files)
	run := &constraintRun{compiler: c, tree: tree, files: files, read: read, hash: hash, results: append([]*fileResult(nil), results...)}
	for i, r := range results {
		if len(r.objects) == 0 {
			continue
		}
		if known := c.files.get(run.key(r)); known != nil {
			run.results[i] = known
			continue
		}
		run.waiting = append(run.waiting, i)
	}
	if len(run.waiting) == 0 && len(run.results) > 0 && anyObject(run.results) {
		return run.results, nil
	}
	return run.all(ctx)
}

func anyObject(results []*fileResult) bool {
	for _, r := range results {
		if len(r.objects) > 0 {
			return true
		}
	}
	return false
}

// A constraintRun holds the results that wait for the constraints.
type constraintRun struct {
	compiler *Compiler
	tree     schema.Tree
	files    []schema.TreeFile
	read     []childFile
	hash     string
	results  []*fileResult
	waiting  []int // indices of results
}

func (run *constraintRun) key(r *fileResult) (path, blob string) {
	return "constrained\x00" + r.path + "\x00" + r.blob, run.hash
}

// An asked object is one of a request, and where its answer goes.
type asked struct {
	result, object int
}

func (run *constraintRun) all(ctx context.Context) ([]*fileResult, error) {
	if len(run.waiting) == 0 {
		// Nothing to hold against them; they must be sound all the same.
		probe := &childRequest{Constraints: run.read, Objects: []childObject{{Kind: "Namespace", JSON: []byte(`{}`)}}}
		answers, err := run.compiler.child.run(ctx, probe)
		fault, err := run.died(err)
		if err != nil {
			return nil, err
		}
		for _, a := range answers {
			if len(a.Faults) > 0 {
				fault = &fileResult{faults: a.Faults}
			}
		}
		if fault != nil {
			run.results = append(run.results, fault)
		}
		return run.results, nil
	}
	for len(run.waiting) > 0 {
		batch, request, index, err := run.next()
		if err != nil {
			return nil, err
		}
		answers, err := run.compiler.child.run(ctx, request)
		fault, err := run.died(err)
		if err != nil {
			return nil, err
		}
		if fault != nil {
			return append(run.results, fault), nil
		}
		made := map[int]*fileResult{}
		for _, a := range answers {
			if len(a.Faults) > 0 { // of the constraints themselves
				return append(run.results, &fileResult{faults: a.Faults}), nil
			}
			if a.Index < 0 || a.Index >= len(index) {
				return nil, errors.New("the CUE child answers what was not asked")
			}
			if err := run.answer(made, index[a.Index], a); err != nil {
				return nil, err
			}
		}
		for _, i := range batch {
			r := made[i]
			if r == nil {
				r = run.results[i]
			}
			path, blob := run.key(run.results[i])
			run.compiler.files.put(path, blob, r, 0)
			run.results[i] = r
		}
		run.waiting = run.waiting[len(batch):]
	}
	return run.results, nil
}

// died turns the death of a child into a fault of the constraints.
func (run *constraintRun) died(err error) (*fileResult, error) {
	var died *errChildDied
	if errors.As(err, &died) {
		return instanceFault(run.files, "cannot be evaluated: "+died.why), nil
	}
	return nil, err
}

// next makes the request for as many files as one child takes.
func (run *constraintRun) next() (batch []int, request *childRequest, index []asked, err error) {
	request = &childRequest{Constraints: run.read}
	size := 0
	for _, i := range run.waiting {
		objects := run.results[i].objects
		if len(batch) > 0 && (len(request.Objects)+len(objects) > childObjects || size > childInput) {
			break
		}
		for j := range objects {
			raw, err := json.Marshal(objects[j].object)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("encode %s: %w", objects[j].title, err)
			}
			size += len(raw)
			request.Objects = append(request.Objects, childObject{Kind: objects[j].object.GetObjectKind().GroupVersionKind().Kind, JSON: raw})
			index = append(index, asked{result: i, object: j})
		}
		batch = append(batch, i)
	}
	return batch, request, index, nil
}

// answer puts what the constraints say of one object into a copy of its file's result.
func (run *constraintRun) answer(made map[int]*fileResult, of asked, a childResult) error {
	if len(a.Broken) == 0 && len(a.Changed) == 0 {
		return nil
	}
	original := run.results[of.result]
	r := made[of.result]
	if r == nil {
		copied := *original
		copied.objects = append([]compiled(nil), original.objects...)
		copied.faults = append([]schema.Fault(nil), original.faults...)
		r = &copied
		made[of.result] = r
	}
	object := &r.objects[of.object]
	if len(a.Changed) > 0 {
		r.faults = append(r.faults, object.recompile(a.Changed)...)
		return nil
	}
	root := run.source(original, object)
	for _, b := range a.Broken {
		path := brokenPath(root, b.Path)
		at := root.find(path)
		file := object.file
		if at.file != "" {
			file = at.file
		}
		remedy := ""
		if b.Where != "" {
			remedy = "see " + b.Where
		}
		r.faults = append(r.faults, schema.Fault{File: file, Line: at.line, Column: at.column, Object: object.title, Field: path,
			Problem: "breaks a constraint of the cluster: " + b.Problem, Remedy: remedy})
	}
	return nil
}

// source reads an object's manifest again, to find the place of a field. It is
// the object's own place when that cannot be done.
func (run *constraintRun) source(r *fileResult, object *compiled) *node {
	nowhere := &node{kind: mapNode, at: object.at}
	for _, f := range run.tree.Files() {
		if f.Path != object.file || strings.HasSuffix(f.Path, ".cue") {
			continue
		}
		content, err := run.tree.Read(f, maxFileBytes)
		if err != nil {
			return nowhere
		}
		for _, d := range flatten(parse(f.Path, content, &faultList{}), &faultList{}) {
			if d.root.at == object.at {
				return d.root
			}
		}
	}
	return nowhere
}

// recompile takes an object to which the constraints added something.
func (x *compiled) recompile(raw []byte) []schema.Fault {
	faults := &faultList{}
	documents := parseJSON(x.file, bytes.TrimSpace(raw), faults)
	if len(faults.faults) > 0 || len(documents) != 1 {
		return []schema.Fault{{File: x.file, Line: x.at.line, Column: x.at.column, Object: x.title, Problem: "cannot be read once the constraints of the cluster are added"}}
	}
	o := compileObject(documents[0])
	var out []schema.Fault
	for _, f := range o.faults.faults {
		f.Line, f.Column = x.at.line, x.at.column
		f.Problem = "with the constraints of the cluster: " + f.Problem
		out = append(out, f)
	}
	if o.object != nil {
		annotations := copyMap(o.object.GetAnnotations())
		annotations[schema.AnnotationSource] = x.object.GetAnnotations()[schema.AnnotationSource]
		o.object.SetAnnotations(annotations)
		x.object, x.key = o.object, schema.KeyOf(o.object)
	}
	return out
}
