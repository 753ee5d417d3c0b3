package pod

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

func drawPod(t *rapid.T) *corev1.Pod {
	policy := rapid.SampledFrom([]corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}).Draw(t, "policy")
	var inits, apps []string
	for i := range rapid.IntRange(0, 2).Draw(t, "inits") {
		n := fmt.Sprintf("i%d", i)
		if rapid.Bool().Draw(t, "sidecar") {
			n += "+sidecar"
		}
		inits = append(inits, n)
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "apps") {
		n := fmt.Sprintf("a%d", i)
		if rapid.Bool().Draw(t, "readiness") {
			n += "+readiness"
		}
		apps = append(apps, n)
	}
	return simPod(policy, inits, apps)
}

// drawEvent is one thing that happens to a pod, from outside or within.
func drawEvent(t *rapid.T, s *sim) {
	if s.gone {
		return
	}
	alive := s.alive()
	switch rapid.IntRange(0, 9).Draw(t, "event") {
	case 0, 1, 2:
		s.step()
	case 3:
		if len(alive) > 0 {
			c := rapid.SampledFrom(alive).Draw(t, "victim")
			s.exit(c, rapid.SampledFrom([]int32{0, 1, 137}).Draw(t, "code"))
		}
	case 4:
		s.now = s.now.Add(time.Duration(rapid.IntRange(1, 900).Draw(t, "seconds")) * time.Second)
	case 5:
		s.forget()
	case 6:
		s.reboot()
	case 7:
		if len(s.seen.Containers) > 0 { // killed between the creation and the start
			c := &s.seen.Containers[rapid.IntRange(0, len(s.seen.Containers)-1).Draw(t, "cut")]
			if c.State == ContainerRunning {
				c.State = ContainerCreated
			}
		}
	case 8:
		action := rapid.SampledFrom([]string{"create sandbox", "set up volumes", "pull a0#0", "start a0#0", "remove volumes", "remove sandbox", "stop a0", "kill a0"}).Draw(t, "action")
		s.broken[action] = "ErrImagePull: drawn"
	case 9:
		s.dies = !s.dies
	}
}

func (s *sim) alive() (alive []*Container) {
	for i := range s.seen.Containers {
		if s.seen.Containers[i].State == ContainerRunning {
			alive = append(alive, &s.seen.Containers[i])
		}
	}
	return alive
}

// checkInvariants holds at any moment.
func (s *sim) checkInvariants(t *rapid.T) {
	alive := map[string]int{}
	for _, c := range s.seen.Containers {
		if c.State == ContainerRunning {
			if alive[c.Name]++; alive[c.Name] > 1 {
				t.Fatalf("two attempts of %s run:\n%s", c.Name, strings.Join(s.log, "\n"))
			}
		}
	}
	st := Status(s.want, s.seen, s.known, s.now)
	if again := Status(s.want, s.seen, s.known, s.now); !reflect.DeepEqual(st, again) {
		t.Fatalf("two statuses of one state: %v, %v", st, again)
	}
	if !reflect.DeepEqual(Next(s.want, s.seen, s.known, s.now), Next(s.want, s.seen, s.known, s.now)) {
		t.Fatal("two steps from one state")
	}
	if old := s.known.Previous.Phase; terminal(old) && st.Phase != old {
		t.Fatalf("phase went from %s to %s", old, st.Phase)
	}
	if n := len(s.alive()); terminal(st.Phase) && n > 0 {
		t.Fatalf("%s, and %d containers run", st.Phase, n)
	}
	for _, c := range append(st.InitContainerStatuses, st.ContainerStatuses...) {
		if (c.State == corev1.ContainerState{}) {
			t.Fatalf("container %s has no state", c.Name)
		}
	}
}

// later comes to rest, going on for as long as it asks to be asked again.
func (s *sim) later(t *rapid.T, d time.Duration) {
	for end := s.now.Add(d); ; {
		recheck, ok := s.settle()
		if !ok {
			t.Fatalf("does not come to rest:\n%s", strings.Join(s.log, "\n"))
		}
		s.checkInvariants(t)
		if recheck.IsZero() || recheck.After(end) || s.gone {
			return
		}
		if !recheck.After(s.now) {
			t.Fatalf("asks to be asked again in the past:\n%s", strings.Join(s.log, "\n"))
		}
		s.now = recheck
	}
}

// From any state the pod reaches what is wanted once nothing stands in the way.
func TestReachesWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(drawPod(t))
		for range rapid.IntRange(0, 30).Draw(t, "events") {
			drawEvent(t, s)
			s.checkInvariants(t)
		}
		s.broken, s.dies = map[string]string{}, true
		s.later(t, time.Hour)
		for range 2 { // init containers succeed
			for _, c := range s.alive() {
				if c.Init && !strings.HasPrefix(c.Name, "i") {
					t.Fatal("unreachable")
				}
				if c.Init && !sidecar(container(s.want, c.Name)) {
					s.exit(c, 0)
				}
			}
			s.later(t, time.Hour)
		}
		if st := s.known.Previous; terminal(st.Phase) {
			if n := len(s.alive()); n > 0 {
				t.Fatalf("%s, and %d containers run:\n%s", st.Phase, n, strings.Join(s.log, "\n"))
			}
			return
		}
		for _, c := range s.want.Spec.Containers {
			if !s.satisfied(c.Name) {
				t.Fatalf("%s neither runs nor is done: %+v\n%s", c.Name, s.seen.Containers, strings.Join(s.log, "\n"))
			}
		}
	})
}

func container(p *corev1.Pod, name string) *corev1.Container {
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == name {
			return &p.Spec.InitContainers[i]
		}
	}
	return nil
}

func (s *sim) satisfied(name string) bool {
	for _, c := range s.seen.Containers {
		if c.Name != name {
			continue
		}
		if c.State == ContainerRunning || s.want.Spec.RestartPolicy == corev1.RestartPolicyNever ||
			s.want.Spec.RestartPolicy == corev1.RestartPolicyOnFailure && c.ExitCode == 0 {
			return true
		}
	}
	return false
}

// A deletion ends with nothing, from any state, within the grace period and the
// pauses of what failed.
func TestDeletionLeavesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(drawPod(t))
		for range rapid.IntRange(0, 30).Draw(t, "events") {
			drawEvent(t, s)
		}
		s.delete(int64(rapid.IntRange(0, 60).Draw(t, "grace")))
		starts := s.serial
		for range rapid.IntRange(0, 10).Draw(t, "eventsWhileGoing") {
			drawEvent(t, s)
			s.checkInvariants(t)
		}
		s.broken = map[string]string{} // dies stays as it is: stubborn ones are killed
		s.later(t, 15*time.Minute)
		if !s.gone || len(s.seen.Containers) > 0 || s.seen.Sandbox.Ready || !s.known.VolumesRemoved || !s.known.SandboxRemoved {
			t.Fatalf("not gone: %+v\n%s", s.seen, strings.Join(s.log, "\n"))
		}
		if s.serial != starts {
			t.Fatalf("started something in a deleted pod:\n%s", strings.Join(s.log, "\n"))
		}
	})
}

// An agent that is killed after any step goes on to the same end, and makes
// nothing twice that runs.
func TestRestartedAgentReachesTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPod(t)
		steady, killed := newSim(p), newSim(p)
		steady.later(t, time.Minute)
		for range 50 {
			if rapid.Bool().Draw(t, "kill") {
				killed.forget()
			}
			killed.step()
		}
		killed.later(t, time.Minute)
		if a, b := ran(steady), ran(killed); a != b {
			t.Fatalf("steady: %s\nkilled: %s\n%s", a, b, strings.Join(killed.log, "\n"))
		}
	})
}

func ran(s *sim) string {
	var b strings.Builder
	for _, c := range s.seen.Containers {
		fmt.Fprintf(&b, "%s#%d %s; ", c.Name, c.Attempt, c.State)
	}
	return b.String()
}

func TestQOS(t *testing.T) {
	for name, p := range map[corev1.PodQOSClass]*corev1.Pod{
		corev1.PodQOSBestEffort: qosPod("", ""),
		corev1.PodQOSBurstable:  qosPod("100m", ""),
		corev1.PodQOSGuaranteed: qosPod("100m", "100m"),
	} {
		if got := QOS(p); got != name {
			t.Errorf("got %s, want %s", got, name)
		}
	}
}
