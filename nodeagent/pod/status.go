package pod

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons why a container waits or ended, as Kubernetes names them.
const (
	ReasonCreating       = "ContainerCreating"
	ReasonInitializing   = "PodInitializing"
	ReasonPull           = "ErrImagePull"
	ReasonPullBackOff    = "ImagePullBackOff"
	ReasonNeverPull      = "ErrImageNeverPull"
	ReasonInvalidImage   = "InvalidImageName"
	ReasonConfig         = "CreateContainerConfigError"
	ReasonCreate         = "CreateContainerError"
	ReasonRun            = "RunContainerError"
	ReasonPostStart      = "PostStartHookError"
	ReasonCrashLoop      = "CrashLoopBackOff"
	ReasonCompleted      = "Completed"
	ReasonError          = "Error"
	ReasonOOM            = "OOMKilled"
	ReasonStart          = "StartError"
	ReasonStatusUnknown  = "ContainerStatusUnknown"
	containerIDScheme    = "containerd://"
	exitKilled           = 137
	messageStatusUnknown = "the container was gone when the pod ended"
	messageDeadline      = "Pod was active on the node longer than the specified deadline"
)

// freshFailure is how long status shows a failure itself before it shows that
// the next try is waited for.
const freshFailure = 2 * time.Second

// Status says what to report of the pod. Equal arguments give equal answers;
// times of transition are kept from known.Previous while nothing changed.
func Status(want *corev1.Pod, seen Seen, known Known, now time.Time) corev1.PodStatus {
	v := look(want, seen, known, now)
	start := metav1.NewTime(v.startTime())
	s := corev1.PodStatus{
		QOSClass:  QOS(want),
		StartTime: &start,
	}
	for i := range want.Spec.InitContainers {
		s.InitContainerStatuses = append(s.InitContainerStatuses, v.containerStatus(&want.Spec.InitContainers[i], true))
	}
	for i := range want.Spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, v.containerStatus(&want.Spec.Containers[i], false))
	}
	var verdict corev1.PodPhase
	s.Phase, verdict, s.Reason, s.Message = v.phase(s)
	if s.Phase == corev1.PodPending && s.Message == "" {
		s.Message = v.progress()
	}
	v.addresses(&s)
	s.ObservedGeneration = want.Generation
	s.Conditions = v.conditions(s, verdict)
	shorten(&s)
	return s
}

// progress says how far the pulls are that the pod waits for. It stands in the
// pod's own message because `describe` shows no message of a container that waits.
func (v *view) progress() string {
	var all []string
	for _, c := range v.specs() {
		if img := v.known.Containers[c.Name].Image; img.Pulling && img.Progress != "" {
			all = append(all, c.Name+": "+img.Progress)
		}
	}
	return strings.Join(all, "; ")
}

func (v *view) addresses(s *corev1.PodStatus) {
	if host := v.known.HostIP; host != "" {
		s.HostIP = host
		s.HostIPs = []corev1.HostIP{{IP: host}}
	}
	if !v.seen.Sandbox.Ready {
		return
	}
	s.PodIP = v.seen.Sandbox.IP
	if v.want.Spec.HostNetwork {
		s.PodIP = v.known.HostIP
	}
	if s.PodIP != "" {
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
}

func (v *view) containerStatus(c *corev1.Container, init bool) corev1.ContainerStatus {
	o := v.outlook(c, init)
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image}
	no := false
	s.Started = &no
	if o.newest == nil {
		return v.unstarted(s, c, init)
	}
	n := o.newest
	s.ContainerID, s.ImageID, s.RestartCount = containerIDScheme+n.ID, n.ImageID, int32(n.Attempt)
	if d := v.dead(n); d != nil {
		s.LastTerminationState = terminated(d)
	}
	switch o.stage {
	case running:
		if w := v.awaitsHook(c, n); w != nil {
			s.State.Waiting = w
			return s
		}
		started := v.started(c, n)
		s.Started, s.Ready = &started, v.ready(c, n) && (!init || sidecar(c))
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(n.StartedAt)}
	case done:
		s.State = terminated(n)
		s.Ready = init && !sidecar(c) && n.ExitCode == 0
	default:
		if w := v.awaits(c, o); w != nil && v.want.DeletionTimestamp == nil {
			s.State, s.LastTerminationState = corev1.ContainerState{Waiting: w}, terminated(n)
		} else {
			s.State = terminated(n)
		}
	}
	return s
}

// unstarted is the status of a container of which there is no attempt: none was
// made yet, or it was removed at the pod's end.
func (v *view) unstarted(s corev1.ContainerStatus, c *corev1.Container, init bool) corev1.ContainerStatus {
	if v.finished() || v.want.DeletionTimestamp != nil {
		old := v.previous(c.Name, init)
		switch {
		case old != nil && old.State.Terminated != nil:
			return *old
		case v.lost() || old != nil && old.ContainerID != "":
			return vanished(s, old)
		case old != nil:
			return *old
		}
	}
	if w := v.awaits(c, outlook{stage: starting}); w != nil && v.hasTurn(c, init) {
		s.State.Waiting = w
		return s
	}
	s.State.Waiting = &corev1.ContainerStateWaiting{Reason: v.creating()}
	if f := v.obstacle(); f.Count > 0 && v.hasTurn(c, init) {
		s.State.Waiting.Message = f.Message
	}
	return s
}

// creating is the reason of a container that only takes its time.
func (v *view) creating() string {
	if len(v.want.Spec.InitContainers) > 0 {
		return ReasonInitializing
	}
	return ReasonCreating
}

// vanished is the status of a container that went without its exit being seen.
func vanished(s corev1.ContainerStatus, old *corev1.ContainerStatus) corev1.ContainerStatus {
	if old != nil {
		s = *old
		s.Ready = false
	}
	s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: exitKilled, Reason: ReasonStatusUnknown, Message: messageStatusUnknown, ContainerID: s.ContainerID,
	}}
	return s
}

// previous is the status of a container as it was last reported; nil when it was not.
func (v *view) previous(name string, init bool) *corev1.ContainerStatus {
	list := v.known.Previous.ContainerStatuses
	if init {
		list = v.known.Previous.InitContainerStatuses
	}
	if i := slices.IndexFunc(list, func(s corev1.ContainerStatus) bool { return s.Name == name }); i >= 0 {
		return list[i].DeepCopy()
	}
	return nil
}

// hasTurn says whether the container is the one, or one of those, to start.
func (v *view) hasTurn(c *corev1.Container, init bool) bool {
	if !init {
		return v.initialized()
	}
	for i := range v.want.Spec.InitContainers {
		switch in := &v.want.Spec.InitContainers[i]; {
		case in.Name == c.Name:
			return true
		case !v.through(in):
			return false
		}
	}
	return false
}

// obstacle is why the pod's shared parts are not there.
func (v *view) obstacle() Failure {
	if !v.seen.Sandbox.Ready && v.known.Sandbox.Count > 0 {
		return v.known.Sandbox
	}
	if !v.known.VolumesReady {
		return v.known.Volumes
	}
	return Failure{}
}

// awaits says what a container that is to be started waits for; nil when for
// nothing worth telling.
func (v *view) awaits(c *corev1.Container, o outlook) *corev1.ContainerStateWaiting {
	note := v.known.Containers[c.Name]
	img := note.Image.Failure
	switch {
	case note.Start.Count > 0 && o.stage == starting:
		return &corev1.ContainerStateWaiting{Reason: note.Start.Reason, Message: note.Start.Message}
	case note.Image.Pulling && note.Image.Progress != "" && o.stage == starting:
		return &corev1.ContainerStateWaiting{Reason: v.creating(), Message: note.Image.Progress}
	case img.Count > 0 && o.stage == starting:
		return v.imageAwaited(c, img)
	case o.stage == starting && o.newest != nil:
		if f := v.obstacle(); f.Count > 0 {
			return &corev1.ContainerStateWaiting{Reason: ReasonCreating, Message: f.Message}
		}
		return nil
	case o.stage != backing:
		return nil
	case o.newest.StartError != "" && v.now.Before(o.newest.FinishedAt.Add(freshFailure)):
		return &corev1.ContainerStateWaiting{Reason: ReasonRun, Message: o.newest.StartError}
	}
	return &corev1.ContainerStateWaiting{
		Reason: ReasonCrashLoop,
		Message: fmt.Sprintf("back-off %v restarting failed container=%s pod=%s_%s(%s)",
			restartPause(o.level), c.Name, v.want.Name, v.want.Namespace, v.want.UID),
	}
}

// awaitsHook says that a running container does not count as such yet, as its
// postStart hook has not succeeded; nil when it does.
func (v *view) awaitsHook(c *corev1.Container, n *Container) *corev1.ContainerStateWaiting {
	switch {
	case v.postStarted(c, n) || v.want.DeletionTimestamp != nil || v.finished():
		return nil
	case v.hooks(n).PostStart == HookFailed:
		return &corev1.ContainerStateWaiting{Reason: ReasonPostStart}
	}
	return &corev1.ContainerStateWaiting{Reason: v.creating()}
}

// imageAwaited tells of an image that could not be had: the failure itself while
// it is fresh, then that the next try is waited for.
func (v *view) imageAwaited(c *corev1.Container, f Failure) *corev1.ContainerStateWaiting {
	if f.Reason != ReasonPull || v.now.Before(f.At.Add(freshFailure)) {
		return &corev1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
	}
	return &corev1.ContainerStateWaiting{
		Reason:  ReasonPullBackOff,
		Message: fmt.Sprintf("Back-off pulling image %q: %s: %s", c.Image, f.Reason, f.Message),
	}
}

func terminated(c *Container) corev1.ContainerState {
	t := &corev1.ContainerStateTerminated{
		ExitCode:    c.ExitCode,
		Message:     c.Message,
		Signal:      c.Signal,
		ContainerID: containerIDScheme + c.ID,
		StartedAt:   metav1.NewTime(c.StartedAt),
		FinishedAt:  metav1.NewTime(c.FinishedAt),
		Reason:      ReasonError,
	}
	switch {
	case c.OOMKilled:
		t.Reason = ReasonOOM
	case c.StartError != "":
		t.Reason, t.Message = ReasonStart, c.StartError
	case c.ExitCode == 0:
		t.Reason = ReasonCompleted
	}
	return corev1.ContainerState{Terminated: t}
}

// ContainerID is the runtime's id of a container that status shows as
// containerd://id.
func ContainerID(shown string) string { return strings.TrimPrefix(shown, containerIDScheme) }
