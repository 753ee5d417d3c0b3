package schema

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Names of Kubernetes around service accounts.
const (
	// DefaultAccount is the service account of pods that name none. It exists in
	// every namespace, whether the repository declares it or not.
	DefaultAccount = "default"
	// RootCAConfigMap is there in every namespace, for pods: it holds as ca.crt
	// what vouches for the API. The repository need not declare it, and may.
	RootCAConfigMap = "kube-root-ca.crt"
	// AnnotationRole on a ServiceAccount says what its pods may do at the API:
	// view or admin, as for people. Without it they may ask what they are.
	AnnotationRole = "pawl.dev/role"

	accountPrefix = "system:serviceaccount:"
	// AccountsGroup is the group of all service accounts.
	AccountsGroup = "system:serviceaccounts"
)

// Bounds of what a pod asks for, as Kubernetes has them, in seconds.
const (
	TokenSecondsDefault = 3600
	TokenSecondsLeast   = 600
	TokenSecondsMost    = 1 << 32
)

// AccountUser is what the API calls a service account.
func AccountUser(namespace, name string) string { return accountPrefix + namespace + ":" + name }

// AccountOf is the name of the pod's service account.
func AccountOf(s *corev1.PodSpec) string {
	if s.ServiceAccountName == "" {
		return DefaultAccount
	}
	return s.ServiceAccountName
}

// TokenSeconds is the life that a projection asks for, within the bounds.
func TokenSeconds(p *corev1.ServiceAccountTokenProjection) int64 {
	if p.ExpirationSeconds == nil {
		return TokenSecondsDefault
	}
	return min(max(*p.ExpirationSeconds, TokenSecondsLeast), TokenSecondsMost)
}

// A TokenRequest is a node's question for a token of a pod that it has. The pod's
// spec must have a volume that asks for the same audience and life.
type TokenRequest struct {
	Pod      PodKey    `json:"pod"`
	UID      types.UID `json:"uid"`
	Audience string    `json:"audience,omitempty"` // "": the API
	Seconds  int64     `json:"seconds"`            // of life
}

// A Token proves to others which pod it was given to.
type Token struct {
	Token   string    `json:"token"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"` // by the clock of who issued it
}
