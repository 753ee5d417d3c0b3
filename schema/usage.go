package schema

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Usage is what something takes of a machine.
type Usage struct {
	CPU uint64 `json:"cpu"` // nanocores (a core's nanoseconds a second), over the window of who tells
	// Memory is the working set in bytes: what is used, less the file cache that
	// has not been used lately and could be given up at once.
	Memory uint64 `json:"memory"`
}

// A NodeUsage is what a node and its containers take, in the words of the node.
// It is news: the newest one counts, and is forgotten when no other comes.
type NodeUsage struct {
	Node   NodeName      `json:"node"`
	Time   time.Time     `json:"time"`   // when it was measured, by the node's clock
	Window time.Duration `json:"window"` // in nanoseconds, that CPU was measured over
	Usage
	Pods []PodUsage `json:"pods,omitempty"` // with a container that runs; sorted by namespace, then name
}

// A PodUsage is what the running containers of one pod take.
type PodUsage struct {
	Namespace  string           `json:"namespace"`
	Name       string           `json:"name"`
	UID        types.UID        `json:"uid"`
	Containers []ContainerUsage `json:"containers"`
	// Storage is what the pod takes on the node's disk, in bytes: its containers'
	// writable layers and logs, and its emptyDirs. nil: not measured yet.
	Storage *uint64 `json:"ephemeralStorage,omitempty"`
}

// A ContainerUsage is what one running container takes.
type ContainerUsage struct {
	Name string `json:"name"`
	// Window that CPU was measured over, in nanoseconds; 0: the node's. Of a
	// container that has just been started it is the time it runs.
	Window time.Duration `json:"window,omitempty"`
	Usage
}

// Key names the pod.
func (u *PodUsage) Key() PodKey { return PodKey{Namespace: u.Namespace, Name: u.Name} }
