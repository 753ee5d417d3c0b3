package why

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// containers says what the pod's containers wait for. Init containers come one
// after the other, so that the first that is not done stands for all.
func (e explainer) containers(p *corev1.Pod) []Finding {
	for _, s := range p.Status.InitContainerStatuses {
		done := s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
		sidecar := s.Started != nil && *s.Started && s.State.Running != nil
		if done || sidecar {
			continue
		}
		return []Finding{e.container(p, s, "init container ")}
	}
	var out []Finding
	for _, s := range p.Status.ContainerStatuses {
		ended := s.State.Terminated != nil && s.State.Terminated.ExitCode == 0 && p.Spec.RestartPolicy != corev1.RestartPolicyAlways
		if s.Ready || ended {
			continue
		}
		out = append(out, e.container(p, s, "container "))
	}
	return out
}

func (e explainer) container(p *corev1.Pod, s corev1.ContainerStatus, what string) Finding {
	f := Finding{Object: "Pod " + p.Name}
	what += s.Name + ": "
	switch st := s.State; {
	case st.Waiting != nil:
		f.State = what + st.Waiting.Reason
		e.waiting(p, s, &f)
	case st.Terminated != nil:
		f.State = what + fmt.Sprintf("ended with exit code %d", st.Terminated.ExitCode)
		f.Since, f.Detail = at(st.Terminated.FinishedAt), strings.TrimPrefix(says(st.Terminated), ": ")
		if f.Detail == "" {
			f.Detail = st.Terminated.Reason
		}
		f.Remedy = logsHint(p, s.Name, "")
	case st.Running != nil && strings.HasPrefix(what, "init"):
		f.State, f.Since, f.Detail = what+"runs", at(st.Running.StartedAt), "what comes after it begins when it has ended"
		f.Remedy = logsHint(p, s.Name, "")
	case st.Running != nil:
		f.State, f.Since = what+"not ready", at(st.Running.StartedAt)
		e.probed(p, s, &f)
	default:
		f.State = what + "waits to be created"
		f.Since = at(p.CreationTimestamp)
	}
	return f
}

// waiting fills in since when, until when, and what to do, for the reasons that
// Kubernetes knows.
func (e explainer) waiting(p *corev1.Pod, s corev1.ContainerStatus, f *Finding) {
	w := s.State.Waiting
	f.Since, f.Detail = e.assigned(p), w.Message
	switch w.Reason {
	case "ImagePullBackOff", "ErrImagePull":
		e.pull(p, s, f)
	case "InvalidImageName":
		f.Remedy = "spec.containers.image is no name of an image; mend the manifest"
	case "ErrImageNeverPull":
		f.Remedy = "the image is not on the node and imagePullPolicy is Never; load it there: pawl image import FILE"
	case "CrashLoopBackOff":
		e.crashed(p, s, f)
	case "CreateContainerConfigError":
		f.Remedy = missing(w.Message)
	case "RunContainerError", "CreateContainerError":
		if t := s.LastTerminationState.Terminated; t != nil {
			f.Since = at(t.FinishedAt)
		}
		if strings.Contains(w.Message, "executable file not found") || strings.Contains(w.Message, "no such file or directory") {
			f.Remedy = "the image has no such command; see command and args in the manifest"
		}
	case "ContainerCreating":
		f.Remedy = missing(w.Message)
	}
}

// pull: how often a pull failed, and when last, stands in the pod's events only.
// The agent makes each pause up to a fifth longer, at random.
func (e explainer) pull(p *corev1.Pod, s corev1.ContainerStatus, f *Finding) {
	f.Remedy = "is the image's name right, and may this node pull it? Without a registry: pawl image import FILE"
	image := s.Image
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if c.Name == s.Name {
			image = c.Image
		}
	}
	failures, first, last := e.failures(p, fmt.Sprintf("Failed to pull image %q", image))
	if failures == 0 {
		return
	}
	f.Since = &first
	pause := doubled(failures - 1)
	if e.now.Before(last.Add(pause + pause/5)) {
		next := last.Add(pause + pause/10)
		f.NextTry, f.About = &next, true
	}
}

// The agent's back-off between restarts and between pulls: 10 s, doubled each
// time, at most 5 min. The first restart is at once.
const (
	firstPause = 10 * time.Second
	maxPause   = 5 * time.Minute
)

func doubled(n int) time.Duration {
	pause := firstPause
	for ; n > 0 && pause < maxPause; n-- {
		pause *= 2
	}
	return min(pause, maxPause)
}

var backoffMessage = regexp.MustCompile(`back-off (\S+) restarting`)

// crashed: the pause is counted from the last exit. It stands in the message;
// where it does not, the number of restarts says how long it is at most.
func (e explainer) crashed(p *corev1.Pod, s corev1.ContainerStatus, f *Finding) {
	f.Remedy = logsHint(p, s.Name, " --previous")
	t := s.LastTerminationState.Terminated
	if t == nil {
		return
	}
	f.Since = at(t.FinishedAt)
	f.Detail = fmt.Sprintf("it ended with exit code %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" {
		f.Detail += " (" + t.Reason + ")"
	}
	f.Detail += says(t) + fmt.Sprintf("; restarted %s so far", times(int(s.RestartCount)))
	if t.Reason == "OOMKilled" {
		f.Remedy = "it needs more memory than resources.limits.memory allows"
	}
	pause := doubled(max(int(s.RestartCount)-1, 0))
	if m := backoffMessage.FindStringSubmatch(s.State.Waiting.Message); m != nil {
		if told, err := time.ParseDuration(m[1]); err == nil {
			pause = told
		}
	}
	next := t.FinishedAt.Add(pause)
	f.NextTry = &next
}

// probed: the newest word of a probe that failed.
func (e explainer) probed(p *corev1.Pod, s corev1.ContainerStatus, f *Finding) {
	if ev := e.newest(p, "Unhealthy"); ev != nil {
		f.Detail = ev.Message
		f.Remedy = "see what it says: pawl logs " + p.Name + inNamespace(p.Namespace) + " -c " + s.Name
		return
	}
	for _, c := range p.Spec.Containers {
		switch {
		case c.Name != s.Name:
		case s.Started != nil && !*s.Started && c.StartupProbe != nil:
			f.Detail = "its startup probe has not succeeded yet"
		case c.ReadinessProbe != nil:
			f.Detail = "its readiness probe does not succeed"
		}
	}
}

// assigned is since when the pod's node is to run it.
func (e explainer) assigned(p *corev1.Pod) *time.Time {
	if p.Status.StartTime != nil {
		return at(*p.Status.StartTime)
	}
	return at(p.CreationTimestamp)
}

// missing reads what a pod refers to and is not there out of a message such as
// configmap "conf" not found.
func missing(message string) string {
	m := missingObject.FindStringSubmatch(message)
	if m == nil {
		return ""
	}
	return fmt.Sprintf("commit the %s %s, or mark the reference optional", m[1], m[2])
}

var missingObject = regexp.MustCompile(`(?i)\b(configmap|secret|persistentvolumeclaim)s? "?([a-z0-9][-a-z0-9./]*)"? not found`)

func logsHint(p *corev1.Pod, container, flags string) string {
	return "see what it said: pawl logs " + p.Name + inNamespace(p.Namespace) + " -c " + container + flags
}

// says is a container's own last word, as part of a sentence.
func says(t *corev1.ContainerStateTerminated) string {
	message := strings.TrimSpace(t.Message)
	if message == "" {
		return ""
	}
	return ": " + message
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
