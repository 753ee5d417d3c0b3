package schema

import (
	"fmt"
	"strings"
)

// A Fault is one thing that is wrong with one place in the repository.
type Fault struct {
	File    string `json:"file,omitempty"`   // path in the tree; "" when the fault is the commit's
	Line    int    `json:"line,omitempty"`   // from 1; 0 when there is none
	Column  int    `json:"column,omitempty"` // from 1; 0 when there is none
	Object  string `json:"object,omitempty"` // "Deployment default/web"; "" when it was not read that far
	Field   string `json:"field,omitempty"`  // spec.template.spec.containers[0].image
	Problem string `json:"problem"`          // what is wrong, in one line
	Remedy  string `json:"remedy,omitempty"` // what would be right, in one line
}

// String is the one line a person reads: file:line:column: object: field: problem (remedy).
func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
			if f.Column > 0 {
				fmt.Fprintf(&b, ":%d", f.Column)
			}
		}
		b.WriteString(": ")
	}
	if f.Object != "" {
		b.WriteString(f.Object + ": ")
	}
	if f.Field != "" {
		b.WriteString(f.Field + ": ")
	}
	b.WriteString(f.Problem)
	if f.Remedy != "" {
		b.WriteString("; " + f.Remedy)
	}
	return b.String()
}

// A Refusal is why a commit does not become a Revision: every fault found in
// it, in the order of files and lines. It is an error that wraps ErrRefused.
type Refusal struct {
	Faults []Fault
}

// Error lists every fault, one a line.
func (r *Refusal) Error() string {
	lines := make([]string, len(r.Faults))
	for i, f := range r.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is(err, ErrRefused) true.
func (r *Refusal) Unwrap() error { return ErrRefused }
