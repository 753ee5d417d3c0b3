package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Known is what the agent knows of a pod besides what the runtime holds. It may
// be lost with the agent at any time: it is found again by doing things again,
// and nothing in it decides whether a running container lives but a failed
// probe, which fails again.
type Known struct {
	HostIP string // of the node

	Sandbox        Failure // of CreateSandbox
	Volumes        Failure // of SetupVolumes
	VolumesReady   bool    // SetupVolumes succeeded with the objects as they are now
	Removal        Failure // of a removal
	VolumesRemoved bool    // RemoveVolumes succeeded after the last container went
	SandboxRemoved bool    // RemoveSandbox succeeded after that

	// Evicted says why the node takes the pod down; "": it does not. It is found
	// again by measuring again.
	Evicted string

	Containers map[string]Note // by container name; what is missing is a zero Note

	// Previous is the status last reported, also by an earlier run of the agent:
	// transition times, verdicts and readiness hold from there.
	Previous corev1.PodStatus
}

// A Note is what the agent knows of one container besides what the runtime holds.
type Note struct {
	Image    ImageNote
	Start    Failure // why an attempt could not even be made
	Stop     Failure // why it could not be asked to stop, or killed
	Probes   Probes
	Hooks    Hooks
	KilledID string    // the container last sent KILL
	KilledAt time.Time // when that was
}

// An ImageNote says how far the image for one attempt is.
type ImageNote struct {
	Attempt int  // it is asked for before every attempt, as its policy may be Always
	Ready   bool // present for that attempt
	Pulling bool // being asked for
	// Progress says how far that is, for status; "" when it is not worth telling.
	Progress string
	Failure  Failure
}

// Probes is what the probes of one container found. It counts only while the
// container ID runs.
type Probes struct {
	ID        string
	Started   bool   // the startup probe succeeded
	Ready     bool   // the readiness probe's verdict
	Unhealthy string // why the liveness or startup probe gave it up; "" while it did not
}

// A Failure is why something could not be done, and when it is tried again.
type Failure struct {
	Reason  string // as Kubernetes names it, for status: ErrImagePull, …
	Message string
	Count   int // failures in a row; 0: there is none
	At      time.Time
	RetryAt time.Time
}

// holds says whether it is too early to try again.
func (f Failure) holds(now time.Time) bool { return f.Count > 0 && now.Before(f.RetryAt) }

// Again is the failure after it happened once more at now: tried again after
// first, twice that, and so on, at most five minutes, stretched by up to a fifth
// by jitter (0 ≤ jitter < 1), so that many pods that failed together do not come
// back together.
func (f Failure) Again(reason, message string, now time.Time, first time.Duration, jitter float64) Failure {
	pause := doubled(first, f.Count)
	pause += time.Duration(float64(pause) * jitter / 5)
	return Failure{Reason: reason, Message: message, Count: f.Count + 1, At: now, RetryAt: now.Add(pause)}
}
