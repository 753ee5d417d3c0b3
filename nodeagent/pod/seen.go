package pod

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// Seen is what a node holds of one pod: the truth as the runtime and the disk
// tell it, never what the agent remembers of having done.
type Seen struct {
	UID types.UID
	Key schema.PodKey

	Sandbox    Sandbox
	Containers []Container // every one that exists, dead ones too; sorted by name, then attempt
}

// Sandbox is the pod's shared part: pinned network, IPC and UTS namespaces, its
// address and its cgroup.
type Sandbox struct {
	Ready     bool
	IP        string // "" while not Ready, and for host-network pods
	CreatedAt time.Time
}

// ContainerState is where one container stands.
type ContainerState string

// The states. A container whose creation was cut off by a crash is Created: it
// has no process and is removed before the next attempt.
const (
	ContainerCreated ContainerState = "created"
	ContainerRunning ContainerState = "running"
	ContainerExited  ContainerState = "exited"
)

// Container is one attempt at running one container of the pod.
type Container struct {
	Name    string // as in the pod's spec
	Attempt int    // 0 for the first; the restart count of the newest attempt
	ID      string // containerd's id, unique on the node
	State   ContainerState
	Init    bool // an init container

	Image   string // as in the spec
	ImageID string // repository@digest, or the digest alone

	CreatedAt  time.Time
	Sandbox    time.Time // CreatedAt of the sandbox that it was made in; zero: not known
	StartedAt  time.Time // zero before it ran
	FinishedAt time.Time // zero before it exited
	ExitCode   int32
	Signal     int32 // that ended it, 0 when it exited by itself
	OOMKilled  bool
	// StopRequested: the agent sent its stop signal (kept as a label on the
	// container, so that a restarted agent goes on counting the grace period).
	// With a preStop hook it is when that began.
	StopRequested time.Time
	// PostStarted: its postStart hook has succeeded; PreStopped: its preStop hook
	// is over; Signalled: its stop signal is known to have been sent. All labels.
	PostStarted, PreStopped, Signalled time.Time
	// StartError: the runtime could not start it (a command that is not there, say);
	// State is Exited, ExitCode 128, as Kubernetes does. "" otherwise.
	StartError string
	LogPath    string // CRI log of this attempt
	// Message is what it left as its last words, by its terminationMessagePath and
	// terminationMessagePolicy; only of an exited one.
	Message string
	// MessageLog: the end of its log stands in for a Message that is missing. Label.
	MessageLog bool
	// Backoff is the level of the restart back-off at which this attempt was
	// started, as Start was told (kept as a label on the container, so that a
	// restarted agent goes on from it); 0 for the first attempt.
	Backoff int
}
