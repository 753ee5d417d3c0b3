package schema

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BlamePath is where the front door answers who gave an object its present form:
// ?kind=deployments&namespace=default&name=web.
const BlamePath = "/apis/pawl.dev/v1/blame"

// A Blame says which commit gave an object, and each of its fields that is no
// longer as it was in the first version, its present form. The data of Secrets
// is not in it.
type Blame struct {
	metav1.TypeMeta `json:",inline"` // pawl.dev/v1, Blame

	Asked   string       `json:"asked"`             // what was asked about: pods/default/web-x
	Object  string       `json:"object"`            // what stands in Git: deployments/default/web
	Owners  []string     `json:"owners,omitempty"`  // of what was asked about, up to Object; none when they are one
	Source  string       `json:"source"`            // of Object in its present form, file:line
	Changed BlameCommit  `json:"changed"`           // the last commit that changed it
	Created *BlameCommit `json:"created,omitempty"` // the commit that it came with; nil: not found, see Note
	Fields  []BlameField `json:"fields,omitempty"`  // in the order of the file, then those that were removed
	Note    string       `json:"note,omitempty"`    // what this leaves out, in one sentence
}

// A BlameCommit is a commit and where in its tree a thing stood.
type BlameCommit struct {
	Commit  string    `json:"commit"`
	Author  string    `json:"author"`
	Email   string    `json:"email,omitempty"`
	When    time.Time `json:"when"` // author date
	Subject string    `json:"subject"`
	File    string    `json:"file"`           // below the deployed path
	Line    int       `json:"line,omitempty"` // from 1; 0 when it is not known or no longer there
}

// A BlameField is a field with the commit that changed it last.
type BlameField struct {
	Path        string `json:"path"`             // spec.template.spec.containers[name=web].image
	Source      string `json:"source,omitempty"` // in the present form, file:line; "" when it was removed
	BlameCommit `json:",inline"`
	Old         *string `json:"old,omitempty"` // before that commit, shortened; nil: it was not there
	New         *string `json:"new,omitempty"` // since then, shortened; nil: it was removed
}
