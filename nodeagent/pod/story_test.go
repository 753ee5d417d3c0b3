package pod

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

var update = flag.Bool("update", false, "rewrite the stories in testdata")

func keyOf(p *corev1.Pod) schema.PodKey { return schema.PodKey{Namespace: p.Namespace, Name: p.Name} }

// TestStories plays the stories in testdata: a line with "> " is what happens,
// the lines below it are what comes of it. -update rewrites the latter; read them
// in the diff.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { playFile(t, f) })
	}
}

func playFile(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	var s *sim
	for _, line := range strings.Split(strings.TrimRight(string(raw), "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
			out.WriteString(line + "\n")
		case strings.HasPrefix(line, "> "):
			out.WriteString(line + "\n")
			s = tell(t, s, strings.Fields(line[2:]), line[2:])
			for _, l := range s.log {
				out.WriteString("  " + strings.TrimRight(l, " ") + "\n")
			}
			s.log = nil
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if out.String() != string(raw) {
		t.Errorf("%s differs; got:\n%s", file, out.String())
	}
}

// tell plays one line of a story.
func tell(t *testing.T, s *sim, f []string, line string) *sim {
	t.Helper()
	switch f[0] {
	case "pod": // pod Always [init=a,b] apps=c,d [grace=N] [deadline=N] [host]
		s = newSim(storyPod(t, f[1:]))
	case "settle":
		s.rest(t)
	case "evict": // evict WHY: it has too much on the disk
		s.known.Evicted = strings.Join(f[1:], " ")
	case "step":
		s.step()
	case "says": // says NAME MESSAGE: as its last words
		s.newest(f[1]).Message = strings.Join(f[2:], " ")
	case "exit": // exit NAME CODE [oom]
		code, err := strconv.Atoi(f[2])
		check(t, err)
		c := s.newest(f[1])
		s.exit(c, int32(code))
		c.OOMKilled = len(f) > 3 && f[3] == "oom"
	case "wait": // wait DURATION: going on whenever it is time to
		d, err := time.ParseDuration(f[1])
		check(t, err)
		s.pass(t, d)
	case "away": // away DURATION: nobody looks meanwhile; below 0, the clock is set back
		d, err := time.ParseDuration(f[1])
		check(t, err)
		s.now = s.now.Add(d)
	case "break": // break ACTION = WHY
		action, why, _ := strings.Cut(strings.TrimPrefix(line, "break "), " = ")
		s.broken[action] = why
	case "slow": // slow ACTION = HOW FAR: a pull that goes on
		action, far, _ := strings.Cut(strings.TrimPrefix(line, "slow "), " = ")
		s.slow[action] = far
	case "pulled": // pulled NAME: the slow pull has come to its end
		s.note(f[1], func(n *Note) { n.Image = ImageNote{Attempt: n.Image.Attempt, Ready: true} })
	case "mend":
		s.broken = map[string]string{}
	case "restart-agent":
		s.forget()
	case "reboot":
		s.reboot()
	case "cut-off": // the newest attempt never got its process
		s.newest(f[1]).State = ContainerCreated
	case "stubborn":
		s.dies = false
	case "delete":
		grace, err := strconv.ParseInt(f[1], 10, 64)
		check(t, err)
		s.delete(grace)
	case "probe": // probe NAME ready|unready|started|unhealthy
		s.probe(t, f[1], f[2])
	case "hook": // hook NAME postStart|preStop done|fails|unkept
		s.endHook(s.newest(f[1]), f[2] == "preStop", f[3] != "fails", f[3] == "unkept")
	case "status":
		s.printStatus()
	case "conditions":
		for _, c := range s.known.Previous.Conditions {
			s.log = append(s.log, fmt.Sprintf("%-25s %-5s since %v %s %s", c.Type, c.Status, c.LastTransitionTime.Sub(s.begun), c.Reason, c.Message))
		}
	default:
		t.Fatalf("story says %q", line)
	}
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func storyPod(t *testing.T, f []string) *corev1.Pod {
	var inits, apps []string
	var set []func(*corev1.Pod)
	for _, w := range f[1:] {
		k, v, _ := strings.Cut(w, "=")
		n, _ := strconv.ParseInt(v, 10, 64)
		switch k {
		case "init":
			inits = strings.Split(v, ",")
		case "apps":
			apps = strings.Split(v, ",")
		case "grace":
			set = append(set, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = &n })
		case "deadline":
			set = append(set, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &n })
		case "host":
			set = append(set, func(p *corev1.Pod) { p.Spec.HostNetwork = true })
		default:
			t.Fatalf("pod %q", w)
		}
	}
	p := simPod(corev1.RestartPolicy(f[0]), inits, apps)
	for _, g := range set {
		g(p)
	}
	return p
}

// rest settles and says until when.
func (s *sim) rest(t *testing.T) {
	t.Helper()
	recheck, ok := s.settle()
	switch {
	case !ok:
		t.Fatalf("does not come to rest:\n%s", strings.Join(s.log, "\n"))
	case s.gone:
		s.logf("gone")
	case !recheck.IsZero():
		s.logf("rest until %v", recheck.Sub(s.begun))
	default:
		s.logf("rest")
	}
}

// pass lets time go by, waking whenever asked to.
func (s *sim) pass(t *testing.T, d time.Duration) {
	t.Helper()
	end := s.now.Add(d)
	for {
		recheck, ok := s.settle()
		if !ok {
			t.Fatalf("does not come to rest:\n%s", strings.Join(s.log, "\n"))
		}
		if recheck.IsZero() || recheck.After(end) {
			s.now = end
			return
		}
		if !recheck.After(s.now) {
			t.Fatalf("asks to be asked again at %v, which is now or past", recheck.Sub(s.begun))
		}
		s.now = recheck
	}
}

func (s *sim) probe(t *testing.T, name, verdict string) {
	id := s.newest(name).ID
	s.note(name, func(n *Note) {
		if n.Probes.ID != id {
			n.Probes = Probes{ID: id}
		}
		switch verdict {
		case "ready":
			n.Probes.Ready = true
		case "unready":
			n.Probes.Ready = false
		case "started":
			n.Probes.Started = true
		case "unhealthy":
			n.Probes.Unhealthy = "Liveness probe failed"
		default:
			t.Fatalf("probe says %q", verdict)
		}
	})
}

// printStatus writes the status as an operator would want to read it.
func (s *sim) printStatus() {
	st := Status(s.want, s.seen, s.known, s.now)
	ready := "not ready"
	for _, c := range st.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			ready = "ready"
		}
	}
	line := fmt.Sprintf("%s, %s", st.Phase, ready)
	for _, x := range []string{st.PodIP, st.Reason, st.Message} {
		if x != "" {
			line += ", " + x
		}
	}
	s.log = append(s.log, line)
	for _, list := range [][]corev1.ContainerStatus{st.InitContainerStatuses, st.ContainerStatuses} {
		for _, c := range list {
			line := fmt.Sprintf("  %s: %s", c.Name, stateText(c.State))
			if c.Ready {
				line += ", ready"
			}
			if c.RestartCount > 0 {
				line += fmt.Sprintf(", restarts %d", c.RestartCount)
			}
			if c.LastTerminationState != (corev1.ContainerState{}) {
				line += ", last " + stateText(c.LastTerminationState)
			}
			s.log = append(s.log, line)
		}
	}
}

func stateText(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Terminated != nil:
		t := fmt.Sprintf("terminated %s %d", s.Terminated.Reason, s.Terminated.ExitCode)
		if s.Terminated.Message != "" {
			t += " (" + s.Terminated.Message + ")"
		}
		return t
	case s.Waiting != nil && s.Waiting.Message != "":
		return fmt.Sprintf("waiting %s (%s)", s.Waiting.Reason, s.Waiting.Message)
	case s.Waiting != nil:
		return "waiting " + s.Waiting.Reason
	}
	return "nothing"
}
