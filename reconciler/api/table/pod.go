package table

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

var pods = func() Columns {
	c := of(podRow,
		nameColumn,
		text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
		text("Status", "The aggregate status of the containers in this pod."),
		text("Restarts", "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
		ageColumn,
		inWide(text("IP", corev1.PodStatus{}.SwaggerDoc()["podIP"])),
		inWide(text("Node", corev1.PodSpec{}.SwaggerDoc()["nodeName"])),
		inWide(text("Nominated Node", corev1.PodStatus{}.SwaggerDoc()["nominatedNodeName"])),
		inWide(text("Readiness Gates", corev1.PodSpec{}.SwaggerDoc()["readinessGates"])),
	)
	c.conditions = func(o schema.Object) []metav1.TableRowCondition { return podConditions(o.(*corev1.Pod)) }
	return c
}()

// podConditions lets a client leave out the pods that have ended.
func podConditions(p *corev1.Pod) []metav1.TableRowCondition {
	completed := metav1.TableRowCondition{
		Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: string(p.Status.Phase),
	}
	switch p.Status.Phase {
	case corev1.PodSucceeded:
		completed.Message = "The pod has completed successfully."
	case corev1.PodFailed:
		completed.Message = "The pod failed."
	default:
		return nil
	}
	return []metav1.TableRowCondition{completed}
}

func podRow(p *corev1.Pod, now time.Time) []any {
	s := summarize(p)
	return []any{
		p.Name, fmt.Sprintf("%d/%d", s.ready, s.total), s.word, s.restarts.since(now), age(p.CreationTimestamp, now),
		podIP(p), or(p.Spec.NodeName, none), or(p.Status.NominatedNodeName, none), readinessGates(p),
	}
}

// A summary is what a pod's row says of its containers.
type summary struct {
	word         string // the STATUS
	ready, total int    // sidecars count, other init containers do not
	restarts     tally
}

// A tally counts restarts.
type tally struct {
	n    int
	last time.Time // when the newest run before the present one ended; zero: not known
}

func (t *tally) add(s *corev1.ContainerStatus) {
	t.n += int(s.RestartCount)
	if ended := s.LastTerminationState.Terminated; ended != nil && ended.FinishedAt.After(t.last) {
		t.last = ended.FinishedAt.Time
	}
}

func (t tally) since(now time.Time) string {
	if t.n == 0 || t.last.IsZero() {
		return strconv.Itoa(t.n)
	}
	return fmt.Sprintf("%d (%s ago)", t.n, since(t.last, now))
}

// summarize finds the one word that says most about a pod. The pod's own reason
// or phase is the least of them; an init container that keeps the others waiting
// goes before it, a container that is not running before both, and a pod that is
// being deleted is Terminating whatever its containers do.
func summarize(p *corev1.Pod) summary {
	s := summary{word: podReason(p), total: len(p.Spec.Containers)}
	for i := range p.Spec.InitContainers {
		if isSidecar(&p.Spec.InitContainers[i]) {
			s.total++
		}
	}
	waits := s.lookAtInit(p)
	if !waits || hasCondition(p, corev1.PodInitialized) {
		s.lookAtContainers(p)
	}
	if p.DeletionTimestamp != nil {
		s.word = terminating(p, s.word)
	}
	return s
}

// podReason is what the pod says of itself.
func podReason(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			return c.Reason
		}
	}
	return or(p.Status.Reason, string(p.Status.Phase))
}

// lookAtInit takes up the init containers, as far as the first one that is not
// done, and says whether there is such a one. Restarts of init containers count
// while they run; afterwards only those of the sidecars do.
func (s *summary) lookAtInit(p *corev1.Pod) (waits bool) {
	var sidecars tally
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		sidecar := sidecarNamed(p, c.Name)
		s.restarts.add(c)
		if sidecar {
			sidecars.add(c)
		}
		switch {
		case c.State.Terminated != nil && c.State.Terminated.ExitCode == 0:
		case sidecar && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
		default:
			s.word = "Init:" + initWord(c, i, len(p.Spec.InitContainers))
			if hasCondition(p, corev1.PodInitialized) {
				s.restarts = sidecars
			}
			return true
		}
	}
	s.restarts = sidecars
	return false
}

// initWord says why the i-th of n init containers is not done.
func initWord(c *corev1.ContainerStatus, i, n int) string {
	switch t, w := c.State.Terminated, c.State.Waiting; {
	case t != nil:
		return endWord(t)
	case w != nil && w.Reason != "" && w.Reason != "PodInitializing":
		return w.Reason
	default:
		return fmt.Sprintf("%d/%d", i, n)
	}
}

// lookAtContainers takes up the containers. The first one that is not running
// gives the word.
func (s *summary) lookAtContainers(p *corev1.Pod) {
	running, failure := false, ""
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		s.restarts.add(c)
		switch t, w := c.State.Terminated, c.State.Waiting; {
		case w != nil && w.Reason != "":
			s.word = w.Reason
		case t != nil:
			s.word = endWord(t)
			if t.ExitCode != 0 {
				failure = s.word
			}
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.word == "Completed" { // of one container, which need not hold for the pod
		s.word = completed(p, running, failure)
	}
}

// completed says what a pod is whose one container is done.
func completed(p *corev1.Pod, running bool, failure string) string {
	switch {
	case running && hasCondition(p, corev1.PodReady):
		return "Running"
	case failure != "":
		return failure
	case running:
		return "NotReady"
	default:
		return "Completed"
	}
}

// endWord says how a container ended.
func endWord(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	default:
		return fmt.Sprintf("ExitCode:%d", t.ExitCode)
	}
}

// terminating is the word of a pod that is being deleted: its own when it has
// ended already, Unknown when its node does not answer.
func terminating(p *corev1.Pod, word string) string {
	switch {
	case p.Status.Reason == "NodeLost":
		return "Unknown"
	case p.Status.Phase == corev1.PodSucceeded, p.Status.Phase == corev1.PodFailed:
		return word
	default:
		return "Terminating"
	}
}

func podIP(p *corev1.Pod) string {
	if len(p.Status.PodIPs) > 0 {
		return or(p.Status.PodIPs[0].IP, none)
	}
	return or(p.Status.PodIP, none)
}

// readinessGates counts the gates that are open.
func readinessGates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return none
	}
	open := 0
	for _, g := range p.Spec.ReadinessGates {
		if hasCondition(p, g.ConditionType) {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}

// hasCondition reports whether a condition is true.
func hasCondition(p *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// isSidecar reports whether an init container runs beside the others.
func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func sidecarNamed(p *corev1.Pod, name string) bool {
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.Name == name {
			return isSidecar(c)
		}
	}
	return false
}
