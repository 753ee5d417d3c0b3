package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A phaseCase is one cell of the table in FEATURES: what one or two containers
// do, and what becomes of the pod under one restart policy.
type phaseCase struct {
	what     string
	scripts  []string // one per container
	memory   string   // limit of the first container; "": none
	policy   corev1.RestartPolicy
	restarts bool // the first container is started again
	phase    corev1.PodPhase
	reason   string // of the first container's last end
}

// stays runs until it is asked to stop.
const stays = "trap 'exit 0' TERM; while :; do sleep 0.1; done"

func phaseTable() []phaseCase {
	rows := []struct {
		what     string
		scripts  []string
		memory   string
		reason   string
		restarts [3]bool // Always, OnFailure, Never
		phases   [3]corev1.PodPhase
	}{
		{"one exits 0", []string{"exit 0"}, "", "Completed",
			[3]bool{true, false, false}, [3]corev1.PodPhase{corev1.PodRunning, corev1.PodSucceeded, corev1.PodSucceeded}},
		{"one fails", []string{"exit 1"}, "", "Error",
			[3]bool{true, true, false}, [3]corev1.PodPhase{corev1.PodRunning, corev1.PodRunning, corev1.PodFailed}},
		{"one of two fails", []string{"exit 1", stays}, "", "Error",
			[3]bool{true, true, false}, [3]corev1.PodPhase{corev1.PodRunning, corev1.PodRunning, corev1.PodRunning}},
		{"none of two runs and one failed", []string{"exit 1", "exit 0"}, "", "Error",
			[3]bool{true, true, false}, [3]corev1.PodPhase{corev1.PodRunning, corev1.PodRunning, corev1.PodFailed}},
		{"out of memory", []string{"head -c 200m /dev/zero | tail"}, "16Mi", "OOMKilled",
			[3]bool{true, true, false}, [3]corev1.PodPhase{corev1.PodRunning, corev1.PodRunning, corev1.PodFailed}},
	}
	var cases []phaseCase
	for _, r := range rows {
		for i, policy := range []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever} {
			cases = append(cases, phaseCase{r.what, r.scripts, r.memory, policy, r.restarts[i], r.phases[i], r.reason})
		}
	}
	return cases
}

func (p phaseCase) name() string {
	return strings.ReplaceAll(p.what, " ", "-") + "-" + strings.ToLower(string(p.policy))
}

func (p phaseCase) manifest() string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\nspec:\n  restartPolicy: %s\n  terminationGracePeriodSeconds: 1\n  containers:\n", p.name(), p.policy)
	for i, script := range p.scripts {
		fmt.Fprintf(&b, "  - name: c%d\n    image: busybox:1\n    command: [sh, -c, %q]\n", i, script)
		if i == 0 && p.memory != "" {
			fmt.Fprintf(&b, "    resources: {limits: {memory: %s}}\n", p.memory)
		}
	}
	return b.String()
}

// check says how the pod differs from what the table says, once its first
// container has ended at least once.
func (p phaseCase) check(pod corev1.Pod) error {
	if len(pod.Status.ContainerStatuses) != len(p.scripts) {
		return fmt.Errorf("%d container statuses", len(pod.Status.ContainerStatuses))
	}
	s := pod.Status.ContainerStatuses[0]
	end := s.State.Terminated
	if s.LastTerminationState.Terminated != nil {
		end = s.LastTerminationState.Terminated
	}
	switch {
	case end == nil:
		return fmt.Errorf("it has not ended yet: %s", describe(pod))
	case end.Reason != p.reason:
		return fmt.Errorf("reason %s, want %s", end.Reason, p.reason)
	case p.restarts != (s.RestartCount > 0):
		return fmt.Errorf("%d restarts", s.RestartCount)
	case pod.Status.Phase != p.phase:
		return fmt.Errorf("phase %s, want %s", pod.Status.Phase, p.phase)
	}
	return nil
}

// TestPhases runs every cell of FEATURES' table of containers, policies and
// phases with real containers and real kills for want of memory.
func TestPhases(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	files := map[string]string{}
	cases := phaseTable()
	for _, p := range cases {
		files[p.name()+".yaml"] = p.manifest()
	}
	c.push(files)
	for _, p := range cases {
		c.eventually(60*time.Second, p.name(), func() error { return p.check(c.pods(p.name())[p.name()]) })
	}
	// What is not restarted stays so; what is, waits for its back-off meanwhile.
	for _, p := range cases {
		if err := p.check(c.pods(p.name())[p.name()]); err != nil {
			t.Errorf("%s, later: %v", p.name(), err)
		}
	}
}
