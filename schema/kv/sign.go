package kv

import (
	"crypto/hmac"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// signed is what of an assignment is the cluster's word and does not change as
// long as the pod has its uid.
type signed struct {
	Node        schema.NodeName         `json:"node"`
	Namespace   string                  `json:"namespace"`
	Name        string                  `json:"name"`
	UID         types.UID               `json:"uid"`
	Labels      map[string]string       `json:"labels,omitempty"`
	Annotations map[string]string       `json:"annotations,omitempty"`
	Owners      []metav1.OwnerReference `json:"owners,omitempty"`
	Spec        corev1.PodSpec          `json:"spec"`
}

// Sign signs an assignment with the cluster's key (HMAC-SHA256). The error is
// that of encoding it.
func (s *Sealer) Sign(a *schema.Assignment) (string, error) {
	return s.sign(a.Node, &a.Pod)
}

// Signed says whether a node tells of a pod as it was once assigned to it.
func (s *Sealer) Signed(r *schema.PodReport) bool {
	want, err := s.sign(r.Node, &r.Pod)
	return err == nil && hmac.Equal([]byte(r.Signature), []byte(want))
}

func (s *Sealer) sign(n schema.NodeName, p *corev1.Pod) (string, error) {
	text, err := json.Marshal(signed{
		Node: n, Namespace: p.Namespace, Name: p.Name, UID: p.UID,
		Labels: p.Labels, Annotations: p.Annotations, Owners: p.OwnerReferences, Spec: p.Spec,
	})
	if err != nil {
		return "", err
	}
	return s.sum(append([]byte("assignment\x00"), text...)), nil // no Secret's sum begins so
}
