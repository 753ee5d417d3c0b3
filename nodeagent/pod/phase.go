package pod

import corev1 "k8s.io/api/core/v1"

// phase sums the containers' statuses up, with the pod's own reason and message.
// Succeeded and Failed are final.
func (v *view) phase(s corev1.PodStatus) (phase corev1.PodPhase, reason, message string) {
	if old := v.known.Previous; terminal(old.Phase) {
		return old.Phase, old.Reason, old.Message
	}
	if v.evicted() {
		return corev1.PodFailed, ReasonEvicted, v.known.Evicted
	}
	if v.expired() {
		return corev1.PodFailed, ReasonDeadline, messageDeadline
	}
	return v.sum(s), "", ""
}

func (v *view) sum(s corev1.PodStatus) corev1.PodPhase {
	if !v.initialized() {
		if v.ended() || v.lost() {
			return corev1.PodFailed
		}
		return corev1.PodPending
	}
	var waiting, running, stopped, failed int
	for _, c := range s.ContainerStatuses {
		switch {
		case c.State.Running != nil:
			running++
		case c.State.Terminated != nil:
			stopped++
			if c.State.Terminated.ExitCode != 0 {
				failed++
			}
		case c.LastTerminationState.Terminated != nil:
			stopped++ // waits to be restarted
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0:
		return corev1.PodPending
	case running > 0:
		return corev1.PodRunning
	case !v.ended() && !v.lost():
		return v.unended(failed)
	case failed > 0:
		return corev1.PodFailed
	default:
		return corev1.PodSucceeded
	}
}

// unended is the phase of a pod none of whose containers runs though it is not
// at its end: its containers are about to be restarted, or it is being deleted.
func (v *view) unended(failed int) corev1.PodPhase {
	if v.want.DeletionTimestamp == nil || len(v.running()) > 0 {
		return corev1.PodRunning
	}
	if failed > 0 {
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}
