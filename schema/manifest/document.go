package manifest

import (
	"fmt"

	"github.com/pawl-project/pawl/schema"
)

// A document is one value of a file, before anybody knows what it is.
type document struct {
	file string
	root *node
}

// A faultList gathers what is wrong with one file, up to maxFileFaults.
type faultList struct {
	faults   []schema.Fault
	dropped  int
	warnings []schema.Fault // what a parser accepts all the same
}

// warn adds a parser's warning at a place.
func (l *faultList) warn(file string, p position, problem, remedy string) {
	if len(l.warnings) < maxFileFaults {
		l.warnings = append(l.warnings, schema.Fault{File: file, Line: p.line, Column: p.column, Problem: problem, Remedy: remedy})
	}
}

func (l *faultList) add(f schema.Fault) {
	if len(l.faults) >= maxFileFaults {
		l.dropped++
		return
	}
	l.faults = append(l.faults, f)
}

// at adds a fault at a place.
func (l *faultList) at(file string, p position, problem, remedy string) {
	if p.file != "" {
		file = p.file
	}
	l.add(schema.Fault{File: file, Line: p.line, Column: p.column, Problem: problem, Remedy: remedy})
}

// done returns what was gathered, with a last line for what was not.
func (l *faultList) done(file string) []schema.Fault {
	if l.dropped > 0 {
		l.faults = append(l.faults, schema.Fault{File: file, Problem: fmt.Sprintf("%d more faults in this file are not shown", l.dropped)})
		l.dropped = 0
	}
	return l.faults
}
