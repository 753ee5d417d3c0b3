package pod

import (
	"fmt"
	"time"
)

// A Step is what to do now. Whoever does it does the actions in their order,
// looks again and asks again; a Step without actions is rest.
type Step struct {
	Actions []Action
	// Recheck is when to ask again if nothing else happens; zero: no need to.
	Recheck time.Time
	// Gone: the pod is deleted and nothing of it is left on the node.
	Gone bool
}

// An Action is one thing to do for a pod. Each is idempotent: the agent may be
// killed after it took effect and before it is known to have.
type Action interface {
	fmt.Stringer
	action()
}

// CreateSandbox makes the pod's namespaces, address and cgroup.
type CreateSandbox struct{}

// SetupVolumes makes the pod's volumes, or brings them up to date.
type SetupVolumes struct{}

// PullImage makes the image for one attempt of a container present. It may take
// long, so it is done beside the others: the pod goes on meanwhile.
type PullImage struct {
	Container string
	Attempt   int
}

// Start creates and starts one attempt of a container.
type Start struct {
	Container string
	Attempt   int
	Backoff   int // level of the restart back-off, to be kept with the container
}

// Signal asks a container to stop by its stop signal, or ends it.
type Signal struct {
	Container string
	ID        string
	Kill      bool
}

// Remove deletes a container that has no process, and its log.
type Remove struct {
	Container string
	ID        string
	Attempt   int
}

// RemoveVolumes unmounts and deletes the pod's volumes.
type RemoveVolumes struct{}

// RemoveSandbox deletes the pod's namespaces, address, cgroup and log folder.
type RemoveSandbox struct{}

func (CreateSandbox) action() {}
func (SetupVolumes) action()  {}
func (PullImage) action()     {}
func (Start) action()         {}
func (Signal) action()        {}
func (Remove) action()        {}
func (RemoveVolumes) action() {}
func (RemoveSandbox) action() {}

func (CreateSandbox) String() string { return "create sandbox" }
func (SetupVolumes) String() string  { return "set up volumes" }
func (a PullImage) String() string   { return fmt.Sprintf("pull %s#%d", a.Container, a.Attempt) }
func (a Start) String() string       { return fmt.Sprintf("start %s#%d", a.Container, a.Attempt) }
func (a Signal) String() string {
	if a.Kill {
		return "kill " + a.Container
	}
	return "stop " + a.Container
}
func (a Remove) String() string      { return fmt.Sprintf("remove %s#%d", a.Container, a.Attempt) }
func (RemoveVolumes) String() string { return "remove volumes" }
func (RemoveSandbox) String() string { return "remove sandbox" }
