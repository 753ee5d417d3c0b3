package schema

import "time"

// Annotations that trace an object back to Git. They stand on every object of
// pawl-desired and are copied to what the planner makes from it.
const (
	// AnnotationRevision is the full hash of the commit that gave the object its present form.
	AnnotationRevision = "pawl.dev/revision"
	// AnnotationSource is where it stands: path:line.
	AnnotationSource = "pawl.dev/source"
	// AnnotationAuthor is who wrote that commit: Name <email>.
	AnnotationAuthor = "pawl.dev/author"
)

// A Revision is a commit whose tree was accepted: the desired state.
type Revision struct {
	Commit   Commit
	Objects  []Object // defaulted, sorted by key, AnnotationSource set; shared and read-only
	Warnings []Fault  // accepted all the same
}

// RevisionResult says what became of a commit.
type RevisionResult string

// The results.
const (
	RevisionApplied RevisionResult = "Applied"
	RevisionRefused RevisionResult = "Refused"
)

// A RevisionRecord is what the store remembers of a commit that was looked at.
type RevisionRecord struct {
	Commit   string         `json:"commit"`
	Author   string         `json:"author"`
	Email    string         `json:"email,omitempty"`
	Subject  string         `json:"subject"`
	When     time.Time      `json:"when"` // author date
	Result   RevisionResult `json:"result"`
	Seen     time.Time      `json:"seen"`              // when the reconciler took it up
	Settled  *time.Time     `json:"settled,omitempty"` // when everything it asks for was so; nil: not yet, or overtaken
	Created  []string       `json:"created,omitempty"` // keys of objects, bounded
	Changed  []string       `json:"changed,omitempty"`
	Removed  []string       `json:"removed,omitempty"`
	Faults   []Fault        `json:"faults,omitempty"`   // of a refused commit
	Warnings []Fault        `json:"warnings,omitempty"` // of an applied one
}
