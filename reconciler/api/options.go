package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

// Options are what a Server stands on.
type Options struct {
	Cache *cache.Cache // required
	// Ready says whether the cache holds the whole picture. Until then resources
	// are answered with 503 and a pause to wait, because a client would take what
	// is missing for deleted. nil: it always does.
	Ready func() bool
	// Checks are asked for each /readyz; nil: there are none.
	Checks func() []Check
	// OpenSecret returns a Secret with its data in the clear. It may return the
	// one it was given, which is never written to. nil: they are not sealed.
	OpenSecret func(*corev1.Secret) (*corev1.Secret, error)
	// Streams serves logs, exec, attach, portforward and archive of a pod; nil: there are no such resources.
	Streams Streams
	// RestartPod ends a pod, so that it is made again. A nil uid means whichever
	// there is, a nil grace the pod's own, in seconds. It returns the pod with its
	// deletionTimestamp set. nil: pods cannot be deleted.
	RestartPod func(ctx context.Context, p schema.PodKey, uid types.UID, grace *int64) (*corev1.Pod, error)
	// Usage is what a node takes; nil when nothing is known, and for the nodes
	// that have not told. It is shared and never changed. nil: there is no
	// metrics.k8s.io.
	Usage func(schema.NodeName) *schema.NodeUsage
	// Lease is that of a node. nil: there is no coordination.k8s.io.
	Lease LeaseOf
	// Validate checks a manifest strictly, as a push would, and returns the object
	// with its defaults. A refusal is a *schema.Refusal. nil: there is no dry run.
	Validate func(ctx context.Context, manifest []byte) (schema.Object, []schema.Fault, error)
	// Review says whose token of a service account this is, and for which of the
	// audiences it is good; none means the API. The error says why it is wrong.
	// nil: there are no TokenReviews.
	Review func(token string, audiences []string) (access.User, []string, error)
	// Repository and Branch are where desired state is changed; named in refusals.
	Repository, Branch string
	Version            string // of Pawl, such as 0.3.0
	Extra              []Route
	Now                func() time.Time // nil: time.Now
	Logger             *slog.Logger     // nil: slog.Default()
}

// A Check is one part of being ready.
type Check struct {
	Name string // one word, such as store
	Err  error  // why it is not ready; nil when it is
}

// Streams serves what flows from a pod and its containers, and to them. The pod existed when it
// was asked; everything else about the request is for Streams to check.
type Streams interface {
	Log(w http.ResponseWriter, r *http.Request, key schema.PodKey)
	Exec(w http.ResponseWriter, r *http.Request, key schema.PodKey)
	Attach(w http.ResponseWriter, r *http.Request, key schema.PodKey)
	PortForward(w http.ResponseWriter, r *http.Request, key schema.PodKey)
	Archive(w http.ResponseWriter, r *http.Request, key schema.PodKey)
}

// A Route is a further thing to GET: a subresource of every object of a Kind, or
// a path of its own.
type Route struct {
	Kind        schema.Kind // with Subresource: /api/v1/…/{plural}/{name}/{Subresource}
	Subresource string      // such as blame; the key is that of an object that exists
	Path        string      // or: this path exactly, and the key is empty
	Handler     func(w http.ResponseWriter, r *http.Request, key schema.ObjectKey)
}

func (o Options) withDefaults() Options {
	if o.Ready == nil {
		o.Ready = func() bool { return true }
	}
	if o.Checks == nil {
		o.Checks = func() []Check { return nil }
	}
	if o.OpenSecret == nil {
		o.OpenSecret = func(s *corev1.Secret) (*corev1.Secret, error) { return s, nil }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}
