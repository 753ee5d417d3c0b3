package schema

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// A RevisionObject is a RevisionRecord as the API shows it: kind Revision of
// pawl.dev/v1, of no namespace, named by the full hash of its commit. It is made
// from the record and never stored.
type RevisionObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"` // created when the reconciler took the commit up

	Spec   RevisionSpec   `json:"spec"`   // what Git says
	Status RevisionStatus `json:"status"` // what the reconciler made of it
}

// RevisionSpec is the commit.
type RevisionSpec struct {
	Commit  string      `json:"commit"`
	Author  string      `json:"author"`
	Email   string      `json:"email,omitempty"`
	Subject string      `json:"subject"`
	When    metav1.Time `json:"when"` // author date
}

// RevisionStatus is what became of the commit.
type RevisionStatus struct {
	Result   RevisionResult    `json:"result"`
	Seen     metav1.MicroTime  `json:"seen"`              // when the reconciler took it up
	Settled  *metav1.MicroTime `json:"settled,omitempty"` // when everything it asks for was so; nil: not yet, or overtaken
	Created  []string          `json:"created,omitempty"` // keys of objects, bounded
	Changed  []string          `json:"changed,omitempty"`
	Removed  []string          `json:"removed,omitempty"`
	Faults   []Fault           `json:"faults,omitempty"`   // of a refused commit
	Warnings []Fault           `json:"warnings,omitempty"` // of an applied one
}

// NewRevisionObject is a record as the API shows it. It shares the record's lists.
func NewRevisionObject(r *RevisionRecord) *RevisionObject {
	k := ObjectKey{Kind: Revisions, Name: r.Commit}
	o := &RevisionObject{
		ObjectMeta: metav1.ObjectMeta{Name: r.Commit, UID: UIDOf(k), CreationTimestamp: metav1.NewTime(r.Seen)},
		Spec:       RevisionSpec{Commit: r.Commit, Author: r.Author, Email: r.Email, Subject: r.Subject, When: metav1.NewTime(r.When)},
		Status: RevisionStatus{
			Result: r.Result, Seen: metav1.NewMicroTime(r.Seen),
			Created: r.Created, Changed: r.Changed, Removed: r.Removed, Faults: r.Faults, Warnings: r.Warnings,
		},
	}
	if r.Settled != nil {
		at := metav1.NewMicroTime(*r.Settled)
		o.Status.Settled = &at
	}
	info, _ := LookupKind(Revisions)
	o.SetGroupVersionKind(info.GVK)
	return o
}

// DeepCopy returns a copy that shares nothing.
func (r *RevisionObject) DeepCopy() *RevisionObject {
	c := *r
	r.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Status.Settled = r.Status.Settled.DeepCopy()
	c.Status.Created = slices.Clone(r.Status.Created)
	c.Status.Changed = slices.Clone(r.Status.Changed)
	c.Status.Removed = slices.Clone(r.Status.Removed)
	c.Status.Faults = slices.Clone(r.Status.Faults)
	c.Status.Warnings = slices.Clone(r.Status.Warnings)
	return &c
}

// DeepCopyObject makes it an Object.
func (r *RevisionObject) DeepCopyObject() runtime.Object { return r.DeepCopy() }
