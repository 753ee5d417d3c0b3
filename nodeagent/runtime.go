package nodeagent

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// Runtime is what the agent needs of a container runtime. Every method may be
// called at any time, from several goroutines, for different pods; calls for one
// pod are made one at a time. Every method is idempotent: the agent may have
// been killed after the last call took effect and before it returned. Errors
// wrap schema.ErrRefused (the manifest's author acts), schema.ErrUnavailable
// (retry with back-off) or schema.ErrNotFound.
type Runtime interface {
	// Seen returns everything the runtime holds that this instance made, whoever
	// made it: the truth from which a restarted agent goes on. Complete or an error.
	Seen(ctx context.Context) ([]pod.Seen, error)
	// SeenPod returns what it holds of one pod; an empty Seen with the uid when nothing.
	SeenPod(ctx context.Context, uid types.UID) (pod.Seen, error)
	// Watch calls changed with the uid of each pod in which a process started,
	// exited or ran out of memory, and with "" when events may have been missed
	// (look at all). It blocks until ctx is done and re-subscribes by itself.
	Watch(ctx context.Context, changed func(types.UID)) error

	// Image makes the image present by the pull policy and returns its identity.
	// One pull per image at a time however many ask; a bound on pulls in parallel.
	Image(ctx context.Context, r ImageRequest) (Image, error)

	// CreateSandbox makes the pod's namespaces, address and cgroup.
	CreateSandbox(ctx context.Context, p *corev1.Pod) (pod.Sandbox, error)
	// Start creates and starts one attempt of one container. When the process
	// cannot be started the container is kept, exited, with StartError.
	Start(ctx context.Context, r StartRequest) (pod.Container, error)
	// Signal sends a signal to a container's main process and, when it is the
	// first stop signal, records at as StopRequested before sending it. stop ""
	// means the image's own stop signal (TERM if it names none); "KILL" ends it,
	// and is recorded by nobody.
	Signal(ctx context.Context, id string, stop string, at time.Time) error
	// Mark keeps a moment of a running container's life with it, the first of its
	// kind; Seen returns it in the field that pod.Container.Set sets.
	Mark(ctx context.Context, id string, m pod.Mark, at time.Time) error
	// Remove deletes an exited or created container, its snapshot, and its log
	// when withLog. A container that is not there is no error.
	Remove(ctx context.Context, id string, withLog bool) error
	// RemoveSandbox deletes what CreateSandbox made and the pod's log folder,
	// after all its containers are gone. Nothing of the uid is left when it returns nil.
	RemoveSandbox(ctx context.Context, uid types.UID) error
}

// Versioner is what a Runtime may have besides, to say what it is, such as
// "containerd://1.6.20". An error means that it does not answer.
type Versioner interface {
	Version(ctx context.Context) (string, error)
}

// Execer is what a Runtime may have besides, to run a command in a container:
// probes and hooks of kind exec. Without it an exec probe fails and says so.
type Execer interface {
	// Exec runs argv in the container, as its user, and returns its exit code and
	// the first part of its output. It ends the command when ctx is done.
	Exec(ctx context.Context, id string, argv []string) (code int, output []byte, err error)
}

// ImageRequest asks for an image to be present.
type ImageRequest struct {
	Image  string            // as in the spec
	Policy corev1.PullPolicy // never empty
	Auth   []corev1.Secret   // imagePullSecrets that exist, of type dockerconfigjson or dockercfg
	// Pulling is called before a registry is asked for the image, which is not done
	// when the policy does not want it; nil: nobody wants to know.
	Pulling func()
	// Progress is called at most once a second while the image is pulled, and not
	// any more when Image has returned; nil: nobody wants to know.
	Progress func(PullProgress)
}

// Image is an image that is present on the node.
type Image struct {
	Ref    string // by which the runtime starts it
	ID     string // repository@digest or digest: what status.containerStatuses[].imageID shows
	User   string // the image's USER, for runAsNonRoot and messages
	Pulled bool   // false when it was there already
	Took   time.Duration
	Bytes  int64
}

// StartRequest is everything that one attempt of one container needs.
type StartRequest struct {
	Pod       *corev1.Pod
	Container *corev1.Container // of Pod; command and args with $(VAR) expanded
	Init      bool
	Attempt   int
	Backoff   int // kept as a label; Seen returns it as pod.Container.Backoff
	Image     Image
	Env       []string // K=V, resolved, in order; the image's own environment comes before
	Mounts    []Mount
	SandboxIP string
	// Sealed are values of Secrets that stand in Container or Mounts. What is told
	// of a start that fails is masked by them; see Mask.
	Sealed []string
}

// Mount is one bind mount into a container.
type Mount struct {
	HostPath      string // absolute, made by nodeagent/volume or the runtime
	ContainerPath string // absolute
	ReadOnly      bool
	// Propagation of mounts made later, on either side; "": none.
	Propagation corev1.MountPropagationMode
}

// Volumes is what the agent needs of volumes: the host's side of a pod's
// volumes below the instance's data and run directories.
type Volumes interface {
	// Setup makes (or brings up to date, by atomic swap) the pod's volumes.
	// objects answers for ConfigMaps and Secrets; one that is missing and not
	// optional is an error wrapping schema.ErrNotFound that names it. It wraps
	// ErrOutdated too when the volumes are all there, with files of before.
	Setup(ctx context.Context, p *corev1.Pod, objects Objects) error
	// Mounts returns the mounts of one container, after Setup.
	Mounts(p *corev1.Pod, c *corev1.Container) ([]Mount, error)
	// Remove unmounts and deletes everything of the pod's volumes.
	Remove(ctx context.Context, uid types.UID) error
	// Held lists the uids of pods that have volumes on this node.
	Held(ctx context.Context) ([]types.UID, error)
}

// ErrOutdated says that a pod's volumes hold what they held before, because an
// object they are made from is gone. The pod can go on with them.
var ErrOutdated = errors.New("its files stay as they were")

// Objects is the node's copy of the objects its pods use.
type Objects interface {
	ConfigMap(namespace, name string) (*corev1.ConfigMap, bool)
	Secret(namespace, name string) (*corev1.Secret, bool)
}

// ControlPlane is what the agent needs of the connection to the gateway;
// schema/kv.Agent is it.
type ControlPlane interface {
	// ReportPods returns once the gateway has stored the reports.
	ReportPods(ctx context.Context, reports []schema.PodReport) error
	// ReportNode tells of the node itself, and is its heartbeat.
	ReportNode(ctx context.Context, n *corev1.Node) error
	// ReportEvents tells of what happened, at most a few hundred at a time. The
	// gateway may drop what it is told.
	ReportEvents(ctx context.Context, events []corev1.Event) error
}
