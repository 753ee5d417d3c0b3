package nodeagent

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// What deserves an Event, in Kubernetes' words. The cores decide and name
// reasons; here they become sentences.

// A notice is one piece of news about a pod.
type notice struct {
	container string // "": the pod itself
	typ       string
	reason    string
	message   string
}

func (w *worker) tellAll(notices []notice) {
	for _, n := range notices {
		w.tell(n.container, n.typ, n.reason, n.message)
	}
}

// tellFailure tells that something could not be done for the pod.
func (w *worker) tellFailure(act pod.Action, reason string, err error) {
	switch reason {
	case "FailedCreatePodSandBox":
		w.warn("", reason, "Failed to create pod sandbox: "+schema.Text(err))
	case "FailedMount", "FailedUnmount":
		w.warn("", reason, schema.Text(err))
	case "FailedKillPod", "FailedKill", "FailedRemove":
		w.warn("", "FailedKillPod", "error killing pod: "+schema.Text(err))
	case pod.ReasonCreate, pod.ReasonConfig:
		name := ""
		if s, ok := act.(pod.Start); ok {
			name = s.Container
		}
		w.warn(name, "Failed", "Error: "+schema.Text(err))
	}
}

// tellPulled tells how asking for an image ended; asked: at a registry.
func (w *worker) tellPulled(container, image string, img Image, asked bool) {
	if !asked && !img.Pulled {
		w.say(container, "Pulled", fmt.Sprintf("Container image %q already present on machine", image))
		return
	}
	took := img.Took.Truncate(time.Millisecond)
	w.say(container, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.", image, took, took, img.Bytes))
}

// tellNoImage tells that an image cannot be had.
func (w *worker) tellNoImage(container string, r ImageRequest, reason string, err error) {
	switch reason {
	case pod.ReasonPull:
		w.warn(container, "Failed", fmt.Sprintf("Failed to pull image %q: %v", r.Image, err))
	case pod.ReasonNeverPull:
		w.warn(container, reason, fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image))
	case pod.ReasonInvalidImage:
		w.warn(container, "InspectFailed", fmt.Sprintf("Failed to apply default image tag %q: %v", r.Image, err))
	default:
		w.warn(container, "Failed", "Error: "+schema.Text(err))
		return
	}
	w.warn(container, "Failed", "Error: "+reason)
}

// tellStarted tells that a container was made, and whether it has a process.
func (w *worker) tellStarted(name string, c pod.Container) {
	w.say(name, "Created", "Created container: "+name)
	if c.StartError != "" {
		w.warn(name, "Failed", "Error: "+c.StartError)
		return
	}
	w.say(name, "Started", "Started container "+name)
}

// tellStop tells that a container is stopped, the first time it is asked to.
func (w *worker) tellStop(want *corev1.Pod, seen pod.Seen, act pod.Signal) {
	note := w.known.Containers[act.Container]
	if note.Stop.Count > 0 {
		return
	}
	for i := range seen.Containers {
		if c := &seen.Containers[i]; c.ID == act.ID && (!c.StopRequested.IsZero() || note.KilledID == c.ID) {
			return
		}
	}
	message := "Stopping container " + act.Container
	if p := note.Probes; want.DeletionTimestamp == nil && p.ID == act.ID && p.Unhealthy != "" {
		kind, _, _ := strings.Cut(p.Unhealthy, " ")
		message = fmt.Sprintf("Container %s failed %s probe, will be restarted", act.Container, strings.ToLower(kind))
	}
	w.say(act.Container, "Killing", message)
}

// changed says what is news in a status after the one before it. A status that
// was never told of before is none.
func changed(p *corev1.Pod, before, now corev1.PodStatus) (all []notice) {
	if before.Phase == "" {
		return nil
	}
	for i := range now.InitContainerStatuses {
		all = append(all, containerChanged(p, before.InitContainerStatuses, &now.InitContainerStatuses[i])...)
	}
	for i := range now.ContainerStatuses {
		all = append(all, containerChanged(p, before.ContainerStatuses, &now.ContainerStatuses[i])...)
	}
	if now.Reason == pod.ReasonDeadline && before.Reason != now.Reason {
		all = append(all, notice{"", corev1.EventTypeNormal, now.Reason, now.Message})
	}
	return all
}

func containerChanged(p *corev1.Pod, list []corev1.ContainerStatus, now *corev1.ContainerStatus) (all []notice) {
	var before corev1.ContainerStatus
	for _, s := range list {
		if s.Name == now.Name {
			before = s
		}
	}
	if t := lastEnd(now); t != nil && t.Reason == pod.ReasonOOM && (lastEnd(&before) == nil || lastEnd(&before).ContainerID != t.ContainerID) {
		all = append(all, notice{now.Name, corev1.EventTypeWarning, "OOMKilling", oomMessage(p, now.Name)})
	}
	w, old := now.State.Waiting, before.State.Waiting
	if w == nil || old != nil && old.Reason == w.Reason && before.ContainerID == now.ContainerID {
		return all
	}
	switch w.Reason {
	case pod.ReasonCrashLoop:
		all = append(all, notice{now.Name, corev1.EventTypeWarning, "BackOff",
			fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", now.Name, p.Name, p.Namespace, p.UID)})
	case pod.ReasonPullBackOff:
		all = append(all,
			notice{now.Name, corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", now.Image)},
			notice{now.Name, corev1.EventTypeWarning, "Failed", "Error: " + w.Reason})
	}
	return all
}

// lastEnd is how the container ended last; nil: it did not yet.
func lastEnd(s *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if s.State.Terminated != nil {
		return s.State.Terminated
	}
	return s.LastTerminationState.Terminated
}

func oomMessage(p *corev1.Pod, name string) string {
	message := "Container " + name + " ran out of memory and was killed"
	if c := container(p, name); c != nil {
		if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok {
			message += " (limit " + limit.String() + ")"
		}
	}
	return message
}

// gone says whether an error only says that what was to be removed is not there.
func gone(reason string, err error) bool {
	return reason == "FailedRemove" && errors.Is(err, schema.ErrNotFound)
}
