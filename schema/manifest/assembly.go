package manifest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/pawl-project/pawl/schema"
)

// An assembly puts the results of all files together, in the order of keys. It
// remembers the last tree, so that a commit costs sorting for what it changes
// and one cheap pass over the rest.
type assembly struct {
	mu     sync.Mutex
	in     map[*fileResult]bool // of the last tree
	sorted []*compiled          // its objects; never changed in place, only replaced
}

// gather makes the Result of a tree, or its refusal.
func (a *assembly) gather(results []*fileResult, faults []schema.Fault) (*Result, error) {
	total := 0
	for _, r := range results {
		total += len(r.objects)
		faults = append(faults, r.faults...)
	}
	if total > maxObjects {
		faults = append(faults, schema.Fault{Problem: fmt.Sprintf("%d objects, the limit of a commit is %d", total, maxObjects)})
		return nil, refusal(faults)
	}
	sorted := a.sort(results)
	faults = append(faults, duplicates(sorted)...)
	if len(faults) > 0 {
		return nil, refusal(faults)
	}
	out := &Result{Objects: make([]schema.Object, len(sorted))}
	for i, o := range sorted {
		out.Objects[i] = o.object
	}
	for _, r := range results {
		out.Warnings = append(out.Warnings, r.warnings...)
		if len(r.objects) > 0 {
			out.Files++
		}
	}
	sortFaults(out.Warnings)
	return out, nil
}

// sort returns the objects of all results by key.
func (a *assembly) sort(results []*fileResult) []*compiled {
	a.mu.Lock()
	defer a.mu.Unlock()
	var added []*compiled
	unknown := 0
	for _, r := range results {
		if a.in[r] {
			continue
		}
		unknown++
		for i := range r.objects {
			added = append(added, &r.objects[i])
		}
	}
	slices.SortStableFunc(added, byKey)
	kept := a.keep(results, unknown)
	a.sorted = merge(kept, added)
	return a.sorted
}

// keep drops what is not in the tree any more from the memory of the last one,
// adds what is new, and returns the objects that stay, in order.
func (a *assembly) keep(results []*fileResult, unknown int) []*compiled {
	kept := a.sorted
	if len(a.in)+unknown != len(results) {
		now := make(map[*fileResult]bool, len(results))
		for _, r := range results {
			now[r] = true
		}
		gone := map[*compiled]bool{}
		for r := range a.in {
			if !now[r] {
				for i := range r.objects {
					gone[&r.objects[i]] = true
				}
			}
		}
		a.in = now
		if len(gone) == 0 {
			return kept
		}
		kept = make([]*compiled, 0, len(a.sorted))
		for _, o := range a.sorted {
			if !gone[o] {
				kept = append(kept, o)
			}
		}
		return kept
	}
	if a.in == nil {
		a.in = make(map[*fileResult]bool, len(results))
	}
	for _, r := range results {
		if !a.in[r] {
			a.in[r] = true
		}
	}
	return kept
}

func byKey(a, b *compiled) int {
	switch {
	case a.key.Less(b.key):
		return -1
	case b.key.Less(a.key):
		return 1
	}
	return 0
}

// merge joins two ordered lists into a new one.
func merge(a, b []*compiled) []*compiled {
	if len(b) == 0 {
		return a
	}
	out := make([]*compiled, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		// Of a long list the run before the next of the short one is copied whole.
		n, _ := slices.BinarySearchFunc(a, b[0], byKey)
		out = append(out, a[:n]...)
		a = a[n:]
		out = append(out, b[0])
		b = b[1:]
	}
	return append(append(out, a...), b...)
}

// duplicates names both places of every object that stands twice.
func duplicates(sorted []*compiled) []schema.Fault {
	var faults []schema.Fault
	for i := 1; i < len(sorted); i++ {
		first, second := sorted[i-1], sorted[i]
		if first.key != second.key {
			continue
		}
		if second.file < first.file || (second.file == first.file && second.at.line < first.at.line) {
			first, second = second, first
		}
		faults = append(faults, schema.Fault{
			File: second.file, Line: second.at.line, Column: second.at.column, Object: second.title,
			Problem: fmt.Sprintf("stands twice, first at %s:%d", first.file, first.at.line),
			Remedy:  "keep one of them",
		})
	}
	return faults
}

// refusal sorts and bounds the faults of a commit.
func refusal(faults []schema.Fault) *schema.Refusal {
	sortFaults(faults)
	if n := len(faults); n > maxFaults {
		faults = append(faults[:maxFaults:maxFaults], schema.Fault{Problem: fmt.Sprintf("%d more faults are not shown", n-maxFaults)})
	}
	return &schema.Refusal{Faults: faults}
}

func sortFaults(faults []schema.Fault) {
	slices.SortStableFunc(faults, func(a, b schema.Fault) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}
