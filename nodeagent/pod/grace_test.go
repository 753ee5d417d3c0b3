package pod

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

// drawBusyPod is a pod with probes and hooks.
func drawBusyPod(t *rapid.T) *corev1.Pod {
	name := func(n string, app bool) string {
		for _, has := range []string{"readiness", "liveness", "startup", "postStart", "preStop"} {
			if (app || strings.Contains(n, "sidecar")) && rapid.IntRange(0, 3).Draw(t, n+has) == 0 {
				n += "+" + has
			}
		}
		return n
	}
	policy := rapid.SampledFrom([]corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}).Draw(t, "policy")
	var inits, apps []string
	for _, n := range []string{"i0", "i1+sidecar", "i2+sidecar"} {
		if rapid.Bool().Draw(t, n) {
			inits = append(inits, name(n, false))
		}
	}
	for _, n := range []string{"a0", "a1", "a2"}[:rapid.IntRange(1, 3).Draw(t, "apps")] {
		apps = append(apps, name(n, true))
	}
	p := simPod(policy, inits, apps)
	if rapid.IntRange(0, 3).Draw(t, "deadlined") == 0 {
		seconds := int64(rapid.IntRange(1, 2000).Draw(t, "deadline"))
		p.Spec.ActiveDeadlineSeconds = &seconds
	}
	return p
}

// drawBusyEvent is one thing more that happens to a pod with probes and hooks.
func drawBusyEvent(t *rapid.T, s *sim) {
	alive := s.alive()
	if s.gone || len(alive) == 0 || rapid.Bool().Draw(t, "plain") {
		drawEvent(t, s)
		return
	}
	c := rapid.SampledFrom(alive).Draw(t, "busy")
	h := s.known.Containers[c.Name].Hooks
	switch rapid.IntRange(0, 3).Draw(t, "busyEvent") {
	case 0:
		s.verdict(c, func(p *Probes) { p.Unhealthy = "Liveness probe failed" })
	case 1:
		s.verdict(c, func(p *Probes) { p.Started, p.Ready = true, true })
	case 2:
		if h.ID == c.ID && h.PostStart == HookRunning {
			s.endHook(c, false, rapid.Bool().Draw(t, "well"), rapid.Bool().Draw(t, "unkept"))
		}
	case 3:
		if h.ID == c.ID && h.PreStop == HookRunning {
			s.endHook(c, true, true, rapid.Bool().Draw(t, "unkept"))
		}
	}
}

func (s *sim) verdict(c *Container, f func(*Probes)) {
	spec := (&view{want: s.want}).spec(c.Name)
	if spec.LivenessProbe == nil && spec.StartupProbe == nil {
		return
	}
	s.note(c.Name, func(n *Note) {
		if n.Probes.ID != c.ID {
			n.Probes = Probes{ID: c.ID}
		}
		f(&n.Probes)
	})
}

// Whatever happened before, a container is not killed before the grace period of
// the pod's deletion is over, unless its own stop began earlier; and it is asked
// to stop before it is killed.
func TestGraceIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(drawBusyPod(t))
		for range rapid.IntRange(0, 40).Draw(t, "events") {
			drawBusyEvent(t, s)
			s.checkInvariants(t)
		}
		if s.gone {
			return
		}
		var asked []string // the ids of those whose stop had begun
		for _, c := range s.alive() {
			if !c.StopRequested.IsZero() || !s.known.Containers[c.Name].KilledAt.IsZero() {
				asked = append(asked, c.ID)
			}
		}
		grace := int64(rapid.IntRange(5, 60).Draw(t, "grace"))
		begun, finished := s.now, look(s.want, s.seen, s.known, s.now).finished() || !s.seen.Sandbox.Ready
		s.delete(grace)
		termed := map[string]bool{}
		s.watch = func(a Action) {
			kill, ok := a.(Signal)
			switch {
			case !ok || finished || slices.Contains(asked, kill.ID):
			case !kill.Kill:
				termed[kill.ID] = true
			case s.now.Before(begun.Add(time.Duration(grace) * time.Second)):
				t.Fatalf("%s was killed %v after the deletion, with %d s to go:\n%s", kill.Container, s.now.Sub(begun), grace, strings.Join(s.log, "\n"))
			case !termed[kill.ID]:
				t.Fatalf("%s was killed and not asked before:\n%s", kill.Container, strings.Join(s.log, "\n"))
			}
		}
		s.broken = map[string]string{}
		s.later(t, 15*time.Minute)
		if !s.gone {
			t.Fatalf("not gone: %+v\n%s", s.seen, strings.Join(s.log, "\n"))
		}
	})
}

// A pod with probes and hooks comes to what is wanted, or to its end, and then
// nothing of it runs.
func TestBusyPodsComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(drawBusyPod(t))
		for range rapid.IntRange(0, 40).Draw(t, "events") {
			drawBusyEvent(t, s)
			s.checkInvariants(t)
		}
		s.broken = map[string]string{}
		for range 60 { // everything goes well from now on
			s.dies = true
			for _, c := range s.alive() {
				h := s.known.Containers[c.Name].Hooks
				switch spec := (&view{want: s.want}).spec(c.Name); {
				case h.ID == c.ID && h.PostStart == HookRunning:
					s.endHook(c, false, true, false)
				case h.ID == c.ID && h.PreStop == HookRunning:
					s.endHook(c, true, true, false)
				case c.Init && !sidecar(spec):
					s.exit(c, 0)
				default:
					s.verdict(c, func(p *Probes) { p.Started, p.Ready = true, true })
				}
			}
			s.later(t, time.Minute)
			s.now = s.now.Add(time.Minute)
		}
		st := s.known.Previous
		if n := len(s.alive()); terminal(st.Phase) && n > 0 {
			t.Fatalf("%s, and %d containers run:\n%s", st.Phase, n, strings.Join(s.log, "\n"))
		}
		if !terminal(st.Phase) && st.Phase != corev1.PodRunning {
			t.Fatalf("%s after an hour in which all went well: %+v\n%s", st.Phase, s.seen, strings.Join(s.log, "\n"))
		}
	})
}
