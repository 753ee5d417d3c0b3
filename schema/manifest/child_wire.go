package manifest

import (
	"strconv"

	"github.com/pawl-project/pawl/schema"
)

// What goes between Compile and the child process: one request on its standard
// input, results on its standard output, one JSON value a line, each announced
// before its evaluation begins, so that the culprit is known when the child dies.

type childRequest struct {
	Instances   []childInstance `json:"instances,omitempty"`
	Constraints []childFile     `json:"constraints,omitempty"`
	Objects     []childObject   `json:"objects,omitempty"`
}

// A childInstance is the CUE files of one directory.
type childInstance struct {
	Files []childFile `json:"files"`
}

type childFile struct {
	Path    string `json:"path"`
	Content []byte `json:"content"`
}

// A childObject is an object to hold against the constraints.
type childObject struct {
	Kind string `json:"kind"`
	JSON []byte `json:"json"`
}

// A childResult answers for one instance or one object, by index.
type childResult struct {
	Begin     bool           `json:"begin,omitempty"` // evaluation of Index starts; nothing else is set
	Index     int            `json:"index"`
	Documents []*wireNode    `json:"documents,omitempty"` // of an instance
	Faults    []schema.Fault `json:"faults,omitempty"`    // of the repository's CUE
	Broken    []broken       `json:"broken,omitempty"`    // constraints that the object breaks
	Changed   []byte         `json:"changed,omitempty"`   // the object's JSON when constraints add to it
}

// broken is one constraint that an object does not hold.
type broken struct {
	Path    []string `json:"path"`
	Problem string   `json:"problem"`
	Where   string   `json:"where,omitempty"` // file:line of the constraint
}

// A wireNode is a node on its way out of the child.
type wireNode struct {
	Kind   nodeKind    `json:"k"`
	File   string      `json:"f,omitempty"`
	Line   int         `json:"l,omitempty"`
	Column int         `json:"c,omitempty"`
	Text   string      `json:"t,omitempty"`
	Keys   []string    `json:"n,omitempty"`
	Values []*wireNode `json:"v,omitempty"`
}

// node builds the node, whose parents' places stand in where its own is unknown.
func (w *wireNode) node(up position) *node {
	at := up
	if w.Line > 0 {
		at = position{file: w.File, line: w.Line, column: w.Column}
	}
	n := &node{kind: w.Kind, at: at, text: w.Text, size: 1, bytes: len(w.Text)}
	if n.kind > listNode || len(w.Keys) > len(w.Values) {
		n.kind = nullNode
		return n
	}
	for i, v := range w.Values {
		if v == nil {
			continue
		}
		child := v.node(at)
		n.size += child.size
		n.bytes += child.bytes
		if n.kind == mapNode && i < len(w.Keys) {
			n.fields = append(n.fields, field{key: w.Keys[i], at: child.at, value: child})
		} else {
			n.items = append(n.items, child)
		}
	}
	return n
}

// brokenPath writes CUE's path as the manifest's: an index where the node is a list.
func brokenPath(root *node, steps []string) string {
	path := ""
	n := root
	for _, s := range steps {
		if i, err := strconv.Atoi(s); err == nil && n != nil && n.kind == listNode {
			path = indexPath(path, i)
			if i < len(n.items) {
				n = n.items[i]
			} else {
				n = nil
			}
			continue
		}
		if u, err := strconv.Unquote(s); err == nil {
			s = u
		}
		path = fieldPath(path, s)
		n = n.get(s)
	}
	return path
}
