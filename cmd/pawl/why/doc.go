// Package why says what an object waits for: a pure function over the object,
// its owners' and its own children, their statuses and events, and the commits
// that were looked at. It refuses to ask a server, to look at a clock, and to
// guess: what no status says is not said.
package why

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// A World is what is known around the object that is asked about: everything in
// its namespace, and the cluster's nodes and revisions. Order does not matter.
type World struct {
	Deployments []appsv1.Deployment
	ReplicaSets []appsv1.ReplicaSet
	Controllers []corev1.ReplicationController
	Pods        []corev1.Pod
	Nodes       []corev1.Node
	Events      []corev1.Event
	Revisions   []schema.RevisionRecord
}

// A Subject is the object that is asked about.
type Subject struct {
	Kind      string // "Deployment"
	Namespace string // "" for what stands in none
	Name      string
	Object    metav1.Object // nil: there is none
}

// String is how faults name it: "Deployment default/web".
func (s Subject) String() string {
	if s.Namespace == "" {
		return s.Kind + " " + s.Name
	}
	return s.Kind + " " + s.Namespace + "/" + s.Name
}

// An Answer says why a Subject is not as Git says, or not there.
type Answer struct {
	WaitsFor []Finding `json:"waitsFor"` // empty: it is as Git says
	Origin   string    `json:"origin,omitempty"`
}

// A Finding is one thing that is not done, and what that waits for in turn.
type Finding struct {
	Object  string     `json:"object"`            // "Pod web-x"
	State   string     `json:"state"`             // "2 of 3 available"
	Since   *time.Time `json:"since,omitempty"`   // nil: nobody says
	NextTry *time.Time `json:"nextTry,omitempty"` // nil: nobody says, or there is none
	About   bool       `json:"about,omitempty"`   // NextTry is, within a tenth of the pause
	Detail  string     `json:"detail,omitempty"`  // in the words of whoever found it
	Remedy  string     `json:"remedy,omitempty"`  // what a person can do; "" when nothing is obvious
	More    int        `json:"more,omitempty"`    // this many others of its kind say the same
	Because []Finding  `json:"because,omitempty"`
}

// Explain says what s waits for at the time now.
func Explain(w World, s Subject, now time.Time) Answer {
	e := explainer{w: w, now: now}
	var a Answer
	if s.Object != nil {
		a.WaitsFor = e.object(s)
		a.Origin = origin(s.Object)
	} else {
		a.WaitsFor = []Finding{{Object: s.String(), State: "is not there", Remedy: "commit it: what Git does not have does not run"}}
	}
	refused := e.refused(s)
	if len(refused) > 0 && s.Object == nil {
		a.WaitsFor[0].Remedy = ""
		a.WaitsFor[0].Because = refused
		return a
	}
	a.WaitsFor = append(a.WaitsFor, refused...)
	return a
}

// An explainer holds what all findings of one answer are made from.
type explainer struct {
	w   World
	now time.Time
}

func (e explainer) object(s Subject) []Finding {
	switch o := s.Object.(type) {
	case *appsv1.Deployment:
		return e.deployment(o)
	case *appsv1.ReplicaSet:
		return e.replicas(setOf(o))
	case *corev1.ReplicationController:
		return e.replicas(controllerOf(o))
	case *corev1.Pod:
		return e.pod(o, 0)
	case *corev1.Node:
		return e.node(o)
	default:
		return nil
	}
}

// origin names the place in Git that an object came from; "" when it does not say.
func origin(o metav1.Object) string {
	a := o.GetAnnotations()
	commit, source, author := a[schema.AnnotationRevision], a[schema.AnnotationSource], a[schema.AnnotationAuthor]
	if commit == "" || source == "" {
		return ""
	}
	text := source + ", commit " + short(commit)
	if author != "" {
		text += " by " + author
	}
	return text
}

func short(commit string) string { return commit[:min(10, len(commit))] }

// at is a time that may be unknown.
func at(t metav1.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t.Time
}
