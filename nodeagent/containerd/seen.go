package containerd

import (
	"context"
	"slices"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// exitUnknown is the exit code of a container whose process ended while nobody
// could see it: the machine or its shim died. 137 is what a kill leaves.
const exitUnknown = 137

// looksAtOnce bounds how many tasks are asked at one time.
const looksAtOnce = 8

// Seen returns everything the instance holds; a pod without a sandbox and
// without containers does not exist.
func (r *Runtime) Seen(ctx context.Context) ([]pod.Seen, error) {
	if err := r.reload(ctx); err != nil {
		return nil, err
	}
	uids, err := r.uids()
	if err != nil {
		return nil, err
	}
	all := make([]pod.Seen, len(uids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(looksAtOnce)
	for i, uid := range uids {
		g.Go(func() (err error) {
			all[i], err = r.look(ctx, uid)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s pod.Seen) bool {
		return s.Key.Name == "" && len(s.Containers) == 0
	}), nil
}

// SeenPod returns what there is of one pod.
func (r *Runtime) SeenPod(ctx context.Context, uid types.UID) (pod.Seen, error) {
	if err := checkUID(uid); err != nil {
		return pod.Seen{}, err
	}
	if err := r.load(ctx); err != nil {
		return pod.Seen{}, err
	}
	return r.look(ctx, uid)
}

// uids lists the pods that have a container or a sandbox, in order.
func (r *Runtime) uids() ([]types.UID, error) {
	uids, err := r.sandboxes()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	for uid := range r.ids {
		uids = append(uids, uid)
	}
	r.mu.Unlock()
	slices.Sort(uids)
	return slices.Compact(uids), nil
}

func (r *Runtime) look(ctx context.Context, uid types.UID) (pod.Seen, error) {
	s := pod.Seen{UID: uid}
	sandbox, err := r.sandbox(uid)
	if err != nil {
		return pod.Seen{}, err
	}
	if sandbox != nil {
		s.Key = sandbox.key()
		s.Sandbox = sandbox.seen()
	}
	for _, rec := range r.ofPod(uid) {
		s.Key = rec.key
		c, err := r.state(ctx, rec)
		if err != nil {
			return pod.Seen{}, err
		}
		if c.State == pod.ContainerExited {
			c.Message = r.message(rec, &c)
		}
		s.Containers = append(s.Containers, c)
	}
	return s, nil
}

// state says where a container stands now.
func (r *Runtime) state(ctx context.Context, rec record) (pod.Container, error) {
	c := rec.Container
	switch {
	case rec.StartError != "":
		c.State, c.ExitCode = pod.ContainerExited, startErrorCode
		return c, nil
	case rec.ended:
		c.State = pod.ContainerExited
		return c, nil
	}
	p, err := r.process(ctx, rec.ID)
	if err != nil {
		return c, err
	}
	if p == nil {
		return r.lost(rec), nil
	}
	switch p.Status {
	case task.Status_CREATED:
		c.State = pod.ContainerCreated
	case task.Status_UNKNOWN: // its shim is gone, or only slow
		pid := r.unknownPID(rec, int(p.Pid))
		if pid == 0 {
			return r.lost(rec), nil
		}
		if r.runcWaits(rec.ID) {
			c.State = pod.ContainerCreated
			return c, nil
		}
		c.State, c.StartedAt = pod.ContainerRunning, startedAt(rec, pid)
	case task.Status_STOPPED:
		e := exitOf(p)
		e.oom = r.oomKilled(rec, e.code)
		c.State, c.ExitCode, c.FinishedAt, c.OOMKilled = pod.ContainerExited, e.code, e.at, e.oom
		c.StartedAt = startedAt(rec, 0)
		r.attach(rec) // what it wrote last may wait in its pipes
		r.remember(rec.ID, e)
	default:
		c.State = pod.ContainerRunning
		c.StartedAt = startedAt(rec, int(p.Pid))
		r.attach(rec)
	}
	return c, nil
}

// lost is a container without a task. It ran and was lost with the machine or
// its shim, or its start was cut off: only then has it no start time.
func (r *Runtime) lost(rec record) pod.Container {
	c := rec.Container
	if !started(rec) {
		c.State = pod.ContainerCreated
		return c
	}
	c.State, c.ExitCode = pod.ContainerExited, exitUnknown
	c.StartedAt = startedAt(rec, 0)
	c.FinishedAt = lastOutput(rec, c.StartedAt)
	return c
}

// process asks for a container's task; nil when it has none.
func (r *Runtime) process(ctx context.Context, id string) (*task.Process, error) {
	response, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		err = errgrpc.ToNative(err)
		if errdefs.IsNotFound(err) || shimClosed(err) {
			return nil, nil
		}
		return nil, unavailable("ask for the task of container "+id, err)
	}
	return response.Process, nil
}

// An exit is how a process ended.
type exit struct {
	code int32
	at   time.Time
	oom  bool
}

func exitOf(p *task.Process) exit {
	e := exit{code: int32(p.ExitStatus), at: time.Now()}
	if p.ExitedAt.IsValid() && !p.ExitedAt.AsTime().IsZero() {
		e.at = p.ExitedAt.AsTime()
	}
	return e
}

// remember keeps an exit in memory, and sees to its being written down.
func (r *Runtime) remember(id string, e exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.records[id]
	if rec == nil || rec.ended {
		return
	}
	rec.StartedAt = startedAt(*rec, 0)
	rec.ExitCode, rec.FinishedAt, rec.OOMKilled = e.code, e.at, e.oom
	rec.ended = true
	r.settleLater(id)
}
