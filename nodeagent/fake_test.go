package nodeagent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/nodeagent/runtimetest"
	"github.com/pawl-project/pawl/schema"
)

// A world is a machine with containers and volumes on it. It outlives the
// agents that work on it.
type world struct {
	mu      sync.Mutex
	pods    map[types.UID]*heldPod
	volumes map[types.UID]map[string]string // what the volumes were last made from
	serial  int
	watches map[int]func(types.UID)

	calls   []string                                     // every call that took effect, in order
	trouble func(ctx context.Context, call string) error // nil: all is well; may also hang
	image   func(ctx context.Context, r nodeagent.ImageRequest) (nodeagent.Image, error)
	collect func(keep []string) (nodeagent.ImageCollection, error) // nil: there is room
}

type heldPod struct {
	key        schema.PodKey
	sandbox    pod.Sandbox
	containers []pod.Container
	commands   map[string][]string // by container id
	env        map[string][]string
}

func newWorld() *world {
	return &world{
		pods: map[types.UID]*heldPod{}, volumes: map[types.UID]map[string]string{}, watches: map[int]func(types.UID){},
		image: func(_ context.Context, r nodeagent.ImageRequest) (nodeagent.Image, error) {
			if r.Policy == corev1.PullNever && strings.Contains(r.Image, "never-heard-of") {
				return nodeagent.Image{}, fmt.Errorf("image %s: %w", r.Image, schema.ErrNotFound)
			}
			return nodeagent.Image{Ref: r.Image, ID: r.Image + "@sha256:1"}, nil
		},
	}
}

// A handle is how one run of the agent works on a world. A dead one does
// nothing any more, as the agent that held it was killed.
type handle struct {
	*world
	dead bool // under mu
	// die is asked before and after every call; true kills the agent there.
	die func(call string, after bool) bool
	end context.CancelFunc // of the agent that holds it
}

var errDead = errors.New("the agent was killed")

// call does one call's effect, unless the agent is killed before it, or it is
// in trouble. The answer is lost when the agent is killed after it.
func (h *handle) call(ctx context.Context, name string, effect func() error) error {
	if h.trouble != nil {
		if err := h.trouble(ctx, name); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.killed(name, false) {
		return errDead
	}
	err := effect()
	if err == nil {
		h.calls = append(h.calls, name)
	}
	if h.killed(name, true) {
		return errDead
	}
	return err
}

func (h *handle) killed(name string, after bool) bool {
	if !h.dead && h.die != nil && h.die(name, after) {
		h.dead = true
		h.end()
	}
	return h.dead
}

func (w *world) tell(uid types.UID) {
	for _, f := range w.watches {
		go f(uid)
	}
}

func (h *handle) Watch(ctx context.Context, changed func(types.UID)) error {
	h.mu.Lock()
	h.serial++
	id := h.serial
	h.watches[id] = changed
	h.mu.Unlock()
	changed("")
	<-ctx.Done()
	h.mu.Lock()
	delete(h.watches, id)
	h.mu.Unlock()
	return ctx.Err()
}

func (h *handle) Seen(context.Context) (all []pod.Seen, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for uid := range h.pods {
		all = append(all, h.see(uid))
	}
	return all, nil
}

func (h *handle) SeenPod(ctx context.Context, uid types.UID) (pod.Seen, error) {
	if h.trouble != nil {
		if err := h.trouble(ctx, "look"); err != nil {
			return pod.Seen{}, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return pod.Seen{}, errDead
	}
	return h.see(uid), nil
}

func (w *world) see(uid types.UID) pod.Seen {
	s := pod.Seen{UID: uid}
	if p := w.pods[uid]; p != nil {
		s.Key, s.Sandbox, s.Containers = p.key, p.sandbox, slices.Clone(p.containers)
	}
	return s
}

func (h *handle) Image(ctx context.Context, r nodeagent.ImageRequest) (nodeagent.Image, error) {
	h.mu.Lock()
	dead := h.dead
	h.mu.Unlock()
	if dead {
		return nodeagent.Image{}, errDead
	}
	return h.image(ctx, r)
}

func (h *handle) CreateSandbox(ctx context.Context, p *corev1.Pod) (sb pod.Sandbox, err error) {
	err = h.call(ctx, "create sandbox", func() error {
		held := h.pods[p.UID]
		if held == nil {
			held = &heldPod{commands: map[string][]string{}, env: map[string][]string{}}
			h.pods[p.UID] = held
		}
		held.key = schema.PodKey{Namespace: p.Namespace, Name: p.Name}
		if !held.sandbox.Ready {
			h.serial++
			held.sandbox = pod.Sandbox{Ready: true, IP: fmt.Sprintf("10.0.0.%d", h.serial), CreatedAt: time.Now()}
		}
		sb = held.sandbox
		return nil
	})
	return sb, err
}

func (h *handle) Start(ctx context.Context, r nodeagent.StartRequest) (c pod.Container, err error) {
	err = h.call(ctx, fmt.Sprintf("start %s#%d", r.Container.Name, r.Attempt), func() error {
		held := h.pods[r.Pod.UID]
		if held == nil || !held.sandbox.Ready {
			return fmt.Errorf("start %s without a sandbox: %w", r.Container.Name, schema.ErrNotFound)
		}
		for _, old := range held.containers {
			if old.Name == r.Container.Name && old.Attempt == r.Attempt {
				c = old
				return nil
			}
			if old.Name == r.Container.Name && old.State == pod.ContainerRunning {
				panic("a second attempt of a running container: " + r.Container.Name)
			}
		}
		h.serial++
		c = pod.Container{
			Name: r.Container.Name, Attempt: r.Attempt, Backoff: r.Backoff, ID: fmt.Sprintf("c%d", h.serial),
			State: pod.ContainerRunning, Init: r.Init, Image: r.Container.Image, ImageID: r.Image.ID,
			Sandbox:   held.sandbox.CreatedAt,
			CreatedAt: time.Now(), StartedAt: time.Now(), LogPath: fmt.Sprintf("%s/%d.log", r.Container.Name, r.Attempt),
		}
		held.commands[c.ID], held.env[c.ID] = append(slices.Clone(r.Container.Command), r.Container.Args...), r.Env
		held.containers = append(held.containers, c)
		sort.Slice(held.containers, func(i, j int) bool {
			x, y := held.containers[i], held.containers[j]
			return x.Name < y.Name || x.Name == y.Name && x.Attempt < y.Attempt
		})
		h.live(r.Pod.UID, held, c.ID)
		c = *held.find(c.ID)
		return nil
	})
	return c, err
}

// live has a process do what its command says.
func (w *world) live(uid types.UID, held *heldPod, id string) {
	cmd, c := held.commands[id], held.find(id)
	switch {
	case runtimetest.Missing.Is(cmd):
		c.StartError, c.StartedAt = "no such file", time.Time{}
		w.exit(uid, c, 128)
	case runtimetest.Exits0.Is(cmd):
		w.exit(uid, c, 0)
	case runtimetest.Exits3.Is(cmd):
		w.exit(uid, c, 3)
	case runtimetest.Greets.Is(cmd):
		greeting := ""
		for _, v := range held.env[id] {
			if k, v, _ := strings.Cut(v, "="); k == "GREETING" {
				greeting = v
			}
		}
		if greeting == "hello" {
			w.exit(uid, c, 0)
		} else {
			w.exit(uid, c, 1)
		}
	default:
		w.tell(uid)
	}
}

func (w *world) exit(uid types.UID, c *pod.Container, code int32) {
	c.State, c.ExitCode, c.FinishedAt = pod.ContainerExited, code, time.Now()
	w.tell(uid)
}

func (p *heldPod) find(id string) *pod.Container {
	if i := slices.IndexFunc(p.containers, func(c pod.Container) bool { return c.ID == id }); i >= 0 {
		return &p.containers[i]
	}
	return nil
}

func (w *world) find(id string) (types.UID, *heldPod, *pod.Container) {
	for uid, p := range w.pods {
		if c := p.find(id); c != nil {
			return uid, p, c
		}
	}
	return "", nil, nil
}

func (h *handle) Signal(ctx context.Context, id, stop string, at time.Time) error {
	return h.call(ctx, "signal "+stop, func() error {
		uid, held, c := h.find(id)
		if c == nil {
			return schema.ErrNotFound
		}
		if c.State != pod.ContainerRunning {
			return nil
		}
		if c.StopRequested.IsZero() && stop != "KILL" {
			c.StopRequested = at
		}
		switch {
		case stop == "KILL":
			h.exit(uid, c, 137)
		case !runtimetest.IgnoresTERM.Is(held.commands[id]):
			h.exit(uid, c, 0)
		}
		return nil
	})
}

func (h *handle) Mark(ctx context.Context, id string, m pod.Mark, at time.Time) error {
	return h.call(ctx, "mark "+string(m), func() error {
		_, _, c := h.find(id)
		if c == nil {
			return schema.ErrNotFound
		}
		before := *c
		if c.Set(m, at); m == pod.MarkStopRequested && !before.StopRequested.IsZero() {
			c.StopRequested = before.StopRequested
		}
		return nil
	})
}

func (h *handle) Remove(ctx context.Context, id string, _ bool) error {
	return h.call(ctx, "remove", func() error {
		_, held, c := h.find(id)
		if c == nil {
			return nil
		}
		if c.State == pod.ContainerRunning {
			panic("removal of a running container")
		}
		held.containers = slices.DeleteFunc(held.containers, func(c pod.Container) bool { return c.ID == id })
		return nil
	})
}

func (h *handle) RemoveSandbox(ctx context.Context, uid types.UID) error {
	return h.call(ctx, "remove sandbox", func() error {
		if held := h.pods[uid]; held != nil && len(held.containers) > 0 {
			panic("removal of a sandbox with containers")
		}
		delete(h.pods, uid)
		return nil
	})
}

// volumes of a world.

type heldVolumes struct{ *handle }

func (v heldVolumes) Setup(ctx context.Context, p *corev1.Pod, objects nodeagent.Objects) error {
	return v.call(ctx, "set up volumes", func() error {
		made := map[string]string{}
		for _, vol := range p.Spec.Volumes {
			if vol.Projected != nil {
				if err := v.projected(ctx, p, &vol, objects, made); err != nil {
					return err
				}
			}
			if vol.ConfigMap == nil {
				continue
			}
			m, ok := objects.ConfigMap(p.Namespace, vol.ConfigMap.Name)
			if !ok && v.volumes[p.UID] != nil {
				return fmt.Errorf("configmap %q not found: %w: %w", vol.ConfigMap.Name, schema.ErrNotFound, nodeagent.ErrOutdated)
			}
			if !ok {
				return fmt.Errorf("configmap %q not found: %w", vol.ConfigMap.Name, schema.ErrNotFound)
			}
			for k, x := range m.Data {
				made[vol.Name+"/"+k] = x
			}
		}
		v.volumes[p.UID] = made
		return nil
	})
}

// projected makes the files with tokens. It is called in a call.
func (v heldVolumes) projected(ctx context.Context, p *corev1.Pod, vol *corev1.Volume, objects nodeagent.Objects, made map[string]string) error {
	for _, s := range vol.Projected.Sources {
		if s.ServiceAccountToken == nil {
			continue
		}
		at := vol.Name + "/" + s.ServiceAccountToken.Path
		have := v.volumes[p.UID][at]
		v.mu.Unlock() // it asks the control plane
		text, err := objects.(nodeagent.Tokens).Token(ctx, p, s.ServiceAccountToken, have)
		v.mu.Lock()
		if err != nil && have != "" {
			return fmt.Errorf("volume %s: %w: %w", vol.Name, err, nodeagent.ErrOutdated)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", vol.Name, err)
		}
		made[at] = text
	}
	return nil
}

func (v heldVolumes) Mounts(*corev1.Pod, *corev1.Container) ([]nodeagent.Mount, error) {
	return nil, nil
}

func (v heldVolumes) Remove(ctx context.Context, uid types.UID) error {
	return v.call(ctx, "remove volumes", func() error {
		delete(v.volumes, uid)
		return nil
	})
}

func (v heldVolumes) Held(context.Context) (uids []types.UID, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for uid := range v.volumes {
		uids = append(uids, uid)
	}
	return uids, nil
}

// TestFakePassesTheSuite holds the fake to what the real runtime is held to.
func TestFakePassesTheSuite(t *testing.T) {
	w := newWorld()
	runtimetest.Run(t, runtimetest.Subject{
		Open:  func(*testing.T) nodeagent.Runtime { return &handle{world: w} },
		Image: "busybox:1",
	})
}
