package pod

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A sim is a node with one pod: it does what Next says, at once, by a clock of
// its own. It has no opinion: what goes wrong is told to it.
type sim struct {
	want  *corev1.Pod
	seen  Seen
	known Known
	now   time.Time
	begun time.Time
	log   []string
	gone  bool

	broken map[string]string // action → why it fails, until mended
	slow   map[string]string // pull that takes its time → how far it is
	serial int
	dies   bool         // processes exit when asked to stop
	watch  func(Action) // is told of each action before it is done; nil: nobody is
}

func newSim(p *corev1.Pod) *sim {
	t := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	p.CreationTimestamp = metav1.NewTime(t)
	s := &sim{want: p, now: t, begun: t, broken: map[string]string{}, slow: map[string]string{}, dies: true}
	s.seen = Seen{UID: p.UID, Key: keyOf(p)}
	s.forget()
	return s
}

// forget is the agent's restart: what is only known is lost, but for the status
// on disk.
func (s *sim) forget() {
	previous := s.known.Previous
	s.known = Known{HostIP: "192.0.2.1", Containers: map[string]Note{}, Previous: previous}
}

// step asks for the next step and does it; false when there was nothing to do.
func (s *sim) step() (Step, bool) {
	st := Next(s.want, s.seen, s.known, s.now)
	s.known.Previous = Status(s.want, s.seen, s.known, s.now)
	if st.Gone {
		s.gone = true
	}
	for _, a := range st.Actions {
		if !s.do(a) {
			break
		}
	}
	s.known.Previous = Status(s.want, s.seen, s.known, s.now)
	return st, len(st.Actions) > 0
}

// settle goes on until nothing is left to do now, and says when to come back.
// It returns false when it does not come to rest.
func (s *sim) settle() (recheck time.Time, ok bool) {
	for range 200 {
		if st, busy := s.step(); !busy {
			return st.Recheck, true
		}
	}
	return time.Time{}, false
}

func (s *sim) do(a Action) bool {
	name := a.String()
	if why, bad := s.broken[name]; bad {
		s.logf("%s: fails: %s", name, why)
		s.fail(a, why)
		switch a.(type) {
		case Signal, PreStop, Keep: // each container's stop is its own
			return true
		}
		return false
	}
	s.logf("%s", name)
	if s.watch != nil {
		s.watch(a)
	}
	switch a := a.(type) {
	case CreateSandbox:
		s.seen.Sandbox = Sandbox{Ready: true, IP: "10.0.0.7", CreatedAt: s.now}
		s.known.Sandbox = Failure{}
	case SetupVolumes:
		s.known.VolumesReady, s.known.Volumes = true, Failure{}
	case PullImage:
		if far, ok := s.slow[name]; ok {
			s.note(a.Container, func(n *Note) {
				n.Image = ImageNote{Attempt: a.Attempt, Pulling: true, Progress: far, Failure: n.Image.Failure}
			})
			break
		}
		s.note(a.Container, func(n *Note) { n.Image = ImageNote{Attempt: a.Attempt, Ready: true} })
	case Start:
		s.serial++
		s.seen.Containers = append(s.seen.Containers, Container{
			Name: a.Container, Attempt: a.Attempt, Backoff: a.Backoff, ID: fmt.Sprintf("c%d", s.serial),
			State: ContainerRunning, Init: s.isInit(a.Container), CreatedAt: s.now, StartedAt: s.now, Sandbox: s.seen.Sandbox.CreatedAt,
			Image: "img", ImageID: "img@sha256:1",
		})
		sort.SliceStable(s.seen.Containers, func(i, j int) bool {
			x, y := s.seen.Containers[i], s.seen.Containers[j]
			return x.Name < y.Name || x.Name == y.Name && x.Attempt < y.Attempt
		})
		s.note(a.Container, func(n *Note) { n.Image, n.Start, n.Stop = ImageNote{}, Failure{}, Failure{} })
	case Signal:
		s.note(a.Container, func(n *Note) { n.Stop = Failure{} })
		c := s.byID(a.ID)
		if c.StopRequested.IsZero() && !a.Kill {
			c.StopRequested = s.now
		}
		switch {
		case a.Kill:
			s.note(a.Container, func(n *Note) { n.KilledID, n.KilledAt = a.ID, s.now })
			s.exit(c, 137)
		default:
			s.hooks(c, func(h *Hooks) { h.Signalled = s.now })
			if s.dies {
				s.exit(c, 143)
			}
		}
	case PostStart:
		s.hooks(s.byID(a.ID), func(h *Hooks) { h.PostStart = HookRunning })
	case PreStop:
		c := s.byID(a.ID)
		if c.StopRequested.IsZero() {
			c.StopRequested = s.now
		}
		s.hooks(c, func(h *Hooks) { h.PreStop = HookRunning })
	case Keep:
		s.byID(a.ID).Set(a.Mark, a.At)
	case Remove:
		s.seen.Containers = slices.DeleteFunc(s.seen.Containers, func(c Container) bool { return c.ID == a.ID })
	case RemoveVolumes:
		s.known.VolumesRemoved, s.known.Removal = true, Failure{}
	case RemoveSandbox:
		s.seen.Sandbox, s.known.SandboxRemoved, s.known.Removal = Sandbox{}, true, Failure{}
	}
	return true
}

// fail keeps a failure as the agent does.
func (s *sim) fail(a Action, why string) {
	switch a := a.(type) {
	case CreateSandbox:
		s.known.Sandbox = s.known.Sandbox.Again("FailedCreatePodSandBox", why, s.now, time.Second, 0)
	case SetupVolumes:
		s.known.Volumes = s.known.Volumes.Again("FailedMount", why, s.now, time.Second, 0)
	case PullImage:
		reason, message, _ := strings.Cut(why, ": ")
		s.note(a.Container, func(n *Note) {
			f := n.Image.Failure.Again(reason, message, s.now, FirstPullPause, 0)
			n.Image = ImageNote{Attempt: a.Attempt, Failure: f}
		})
	case Start:
		reason, message, _ := strings.Cut(why, ": ")
		if reason == ReasonRun { // the runtime keeps what could not be started
			delete(s.broken, a.String())
			s.do(a)
			c := s.newest(a.Container)
			c.State, c.StartError, c.ExitCode, c.FinishedAt, c.StartedAt = ContainerExited, message, 128, s.now, time.Time{}
			s.broken[a.String()] = why
			return
		}
		s.note(a.Container, func(n *Note) {
			n.Image = ImageNote{}
			n.Start = n.Start.Again(reason, message, s.now, FirstPullPause, 0)
		})
	case Signal: // that it was asked to is written down before it is
		if c := s.byID(a.ID); c.StopRequested.IsZero() && !a.Kill {
			c.StopRequested = s.now
		}
		s.failStop(a.Container, why)
	case PreStop:
		s.failStop(a.Container, why)
	case Keep:
		s.failStop(a.Container, why)
	default:
		s.known.Removal = s.known.Removal.Again("Failed", why, s.now, time.Second, 0)
	}
}

func (s *sim) failStop(name, why string) {
	s.note(name, func(n *Note) { n.Stop = n.Stop.Again("Failed", why, s.now, time.Second, 0) })
}

func (s *sim) note(name string, f func(*Note)) {
	n := s.known.Containers[name]
	f(&n)
	s.known.Containers[name] = n
}

func (s *sim) hooks(c *Container, f func(*Hooks)) {
	s.note(c.Name, func(n *Note) {
		if n.Hooks.ID != c.ID {
			n.Hooks = Hooks{ID: c.ID}
		}
		f(&n.Hooks)
	})
}

// endHook has a running hook of c come to its end; unkept: the agent is killed
// before it could keep that.
func (s *sim) endHook(c *Container, preStop, ok, unkept bool) {
	switch {
	case preStop:
		s.hooks(c, func(h *Hooks) { h.PreStop = HookDone })
		if !unkept {
			c.PreStopped = s.now
		}
	case !ok:
		s.hooks(c, func(h *Hooks) { h.PostStart = HookFailed })
	default:
		s.hooks(c, func(h *Hooks) { h.PostStart = HookDone })
		if !unkept {
			c.PostStarted = s.now
		}
	}
	if unkept {
		s.forget()
	}
}

func (s *sim) isInit(name string) bool {
	return slices.ContainsFunc(s.want.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

func (s *sim) byID(id string) *Container {
	for i := range s.seen.Containers {
		if s.seen.Containers[i].ID == id {
			return &s.seen.Containers[i]
		}
	}
	panic("no container " + id)
}

func (s *sim) newest(name string) *Container {
	for i := len(s.seen.Containers) - 1; i >= 0; i-- {
		if s.seen.Containers[i].Name == name {
			return &s.seen.Containers[i]
		}
	}
	panic("no container " + name)
}

func (s *sim) exit(c *Container, code int32) {
	c.State, c.ExitCode, c.FinishedAt = ContainerExited, code, s.now
	if code > 128 && code != 255 {
		c.Signal = code - 128
	}
}

// reboot ends every process and takes the sandbox and what the agent knew.
func (s *sim) reboot() {
	for i := range s.seen.Containers {
		if c := &s.seen.Containers[i]; c.State == ContainerRunning {
			s.exit(c, 255)
		}
	}
	s.seen.Sandbox = Sandbox{}
	s.forget()
}

func (s *sim) delete(grace int64) {
	s.want = s.want.DeepCopy()
	at := metav1.NewTime(s.now)
	s.want.DeletionTimestamp, s.want.DeletionGracePeriodSeconds = &at, &grace
}

func (s *sim) logf(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%-6v ", s.now.Sub(s.begun))+fmt.Sprintf(format, args...))
}

// simPod is a pod with the containers named.
func simPod(policy corev1.RestartPolicy, inits, apps []string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: types.UID("u1")}}
	p.Spec.RestartPolicy = policy
	for _, n := range inits {
		p.Spec.InitContainers = append(p.Spec.InitContainers, simContainer(n))
	}
	for _, n := range apps {
		p.Spec.Containers = append(p.Spec.Containers, simContainer(n))
	}
	return p
}

// simContainer reads name[+sidecar][+readiness][+startup][+liveness][+postStart][+preStop];
// a probe may have a grace period of its own: +liveness:5.
func simContainer(text string) corev1.Container {
	parts := strings.Split(text, "+")
	c := corev1.Container{Name: parts[0], Image: "img", ImagePullPolicy: corev1.PullIfNotPresent}
	for _, p := range parts[1:] {
		probe := &corev1.Probe{}
		p, grace, _ := strings.Cut(p, ":")
		if n, err := strconv.ParseInt(grace, 10, 64); err == nil {
			probe.TerminationGracePeriodSeconds = &n
		}
		if c.Lifecycle == nil {
			c.Lifecycle = &corev1.Lifecycle{}
		}
		switch p {
		case "postStart":
			c.Lifecycle.PostStart = &corev1.LifecycleHandler{}
		case "preStop":
			c.Lifecycle.PreStop = &corev1.LifecycleHandler{}
		case "sidecar":
			always := corev1.ContainerRestartPolicyAlways
			c.RestartPolicy = &always
		case "readiness":
			c.ReadinessProbe = probe
		case "startup":
			c.StartupProbe = probe
		case "liveness":
			c.LivenessProbe = probe
		default:
			panic("container " + text)
		}
	}
	return c
}
