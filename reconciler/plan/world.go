package plan

import (
	"encoding/json"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// A World is everything a plan is made from. It is read-only to Plan, and whole:
// the caller makes no World before every view it is taken from is whole.
type World struct {
	// Desired is pawl-desired: the accepted objects with uid, generation and
	// creationTimestamp.
	Desired map[schema.ObjectKey]schema.Object
	// Assignments is pawl-assignments. A pod may be assigned to one node only;
	// two entries for one pod are a fault that Plan mends.
	Assignments map[schema.NodeName]map[schema.PodKey]schema.Assignment
	// Reports is what the nodes say of their pods. A report without a node is a
	// PendingPod that Plan wrote.
	Reports map[schema.PodKey]schema.PodReport
	// ReplicaSets are the ones Plan made for Deployments.
	ReplicaSets map[schema.ObjectKey]*appsv1.ReplicaSet
	// Status is the status Plan wrote for desired objects (metadata and status only).
	Status map[schema.ObjectKey]schema.Object
	Nodes  map[schema.NodeName]*corev1.Node
	// KeepAll: Desired may lack objects, because no revision was compared with it
	// since the store was opened (the store may have been wiped, or have lost
	// keys). Nothing is removed then for not being in it.
	KeepAll bool
}

// A Change is one write to the store, with its reason. Exactly one of Assign,
// Unassign, Put and Delete is set.
type Change struct {
	Assign   *schema.Assignment // create or replace the assignment of one pod
	Unassign *Unassign          // delete the assignment of a pod that is gone
	Put      schema.Object      // into pawl-actual: a ReplicaSet, a desired object's status, or a *PendingPod
	Delete   *schema.ObjectKey  // from pawl-actual

	About   schema.ObjectKey // what the reason is about: the owner that asked for it
	UID     types.UID        // of the pod that About names; "": it is no pod, or nobody is told
	Owner   schema.ObjectKey // of the pod that About names and that this makes; zero: it was there before
	Type    string           // corev1.EventTypeNormal or EventTypeWarning; "": not worth an event
	Event   string           // CamelCase: SuccessfulCreate, ScalingReplicaSet, Killing, FailedScheduling …
	Message string           // one sentence, for people
}

// A PendingPod is a pod that no node can take yet: phase Pending, with the
// reason in its PodScheduled condition. It stands in pawl-actual where its report
// will stand, written as a report without a node, until it is assigned. A report
// of a node takes its place at any time.
type PendingPod struct{ *corev1.Pod }

// MarshalJSON writes a schema.PodReport.
func (p *PendingPod) MarshalJSON() ([]byte, error) {
	return json.Marshal(schema.PodReport{Pod: *p.Pod})
}

// DeepCopyObject makes PendingPod a schema.Object of its own.
func (p *PendingPod) DeepCopyObject() runtime.Object { return &PendingPod{Pod: p.DeepCopy()} }

// Unassign names an assignment to delete.
type Unassign struct {
	Node schema.NodeName
	Pod  schema.PodKey
}

// A Result is what Plan decides.
type Result struct {
	Changes []Change  // in the order to write them
	Recheck time.Time // ask again then if nothing else happens; zero: no need
	Settled bool      // everything desired is so: nothing is on its way or waiting
	// Waiting says, for each pod that cannot be placed or object that cannot go
	// on, why not, in one line.
	Waiting map[schema.ObjectKey]string
}
