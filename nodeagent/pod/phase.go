package pod

import corev1 "k8s.io/api/core/v1"

// phase sums the containers' statuses up, with the pod's own reason and message.
// Succeeded and Failed are final, and told when nothing of the pod runs any more:
// whoever reads them takes its place and its name for free. Until then the phase
// is what it was, and verdict what it will be.
func (v *view) phase(s corev1.PodStatus) (phase, verdict corev1.PodPhase, reason, message string) {
	if old := v.known.Previous; terminal(old.Phase) {
		return old.Phase, old.Phase, old.Reason, old.Message
	}
	switch {
	case v.evicted():
		verdict, reason, message = corev1.PodFailed, ReasonEvicted, v.known.Evicted
		if message == "" { // an agent before this one knew
			message = v.known.Previous.Message
		}
	case v.expired():
		verdict, reason, message = corev1.PodFailed, ReasonDeadline, messageDeadline
	default:
		verdict = v.sum(s)
	}
	switch {
	case !terminal(verdict) || len(v.running()) == 0:
		return verdict, verdict, reason, message
	case v.initialized():
		return corev1.PodRunning, verdict, reason, message
	default:
		return corev1.PodPending, verdict, reason, message
	}
}

func (v *view) sum(s corev1.PodStatus) corev1.PodPhase {
	if !v.initialized() && !v.appsDone() {
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
