package schema

import corev1 "k8s.io/api/core/v1"

// An Assignment is a pod bound to a node: the reconciler's order to the node's
// agent. Pod carries uid, creationTimestamp and the whole spec with
// spec.nodeName set; it never changes for one uid, but for its
// deletionTimestamp: once set, the agent stops the pod within
// deletionGracePeriodSeconds and reports it Gone. The assignment's key is
// removed only after that.
type Assignment struct {
	Node NodeName   `json:"node"`
	Pod  corev1.Pod `json:"pod"`
	// Signature is the cluster's, by which it knows its own assignment again when
	// it has lost its store and a node tells of it. Agents keep it and hand it back.
	Signature string `json:"signature,omitempty"`
}

// A PodReport is what a node's agent says of one pod: the pod as it was
// assigned (metadata and spec) with its status as it is. A store that was lost
// is rebuilt from these.
type PodReport struct {
	Node NodeName   `json:"node"`
	Pod  corev1.Pod `json:"pod"`
	// Gone: nothing of this uid is left on the node (no container, namespace,
	// mount or address), and the agent will not speak of it again.
	Gone bool `json:"gone,omitempty"`
	// Signature is that of the assignment.
	Signature string `json:"signature,omitempty"`
}
