package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// DestroyAll kills and removes every container and sandbox of the instance, and
// its cgroup. Images stay. It goes on past what fails and tells of all of it.
func (r *Runtime) DestroyAll(ctx context.Context) error {
	if err := r.reload(ctx); err != nil {
		return err
	}
	uids, err := r.uids()
	if err != nil {
		return err
	}
	faults := make([]error, len(uids))
	var g errgroup.Group
	g.SetLimit(looksAtOnce)
	for i, uid := range uids {
		g.Go(func() error {
			faults[i] = r.destroy(ctx, uid)
			return nil
		})
	}
	if err := errors.Join(g.Wait(), errors.Join(faults...)); err != nil {
		return err
	}
	if err := r.killCgroup(r.instanceCgroup()); err != nil {
		return err
	}
	for tries := 0; ; tries++ { // a killed process leaves its cgroup a moment later
		err := r.removeCgroup(r.instanceCgroup())
		if !errors.Is(err, unix.EBUSY) || tries == 50 || !wait(ctx, 20*time.Millisecond) {
			return err
		}
	}
}

// EndAll kills every process of the instance's containers, without a word to
// containerd, which may be dead: afterwards nothing writes to volumes and layers.
func (r *Runtime) EndAll(ctx context.Context) error {
	for tries := 0; ; tries++ {
		if err := r.killCgroup(r.instanceCgroup()); err != nil {
			return err
		}
		left, err := r.anyIn(r.instanceCgroup())
		switch {
		case err != nil || !left:
			return err
		case tries == 500 || !wait(ctx, 20*time.Millisecond):
			return fmt.Errorf("processes of containers do not die: %w", schema.ErrUnavailable)
		}
	}
}

func (r *Runtime) destroy(ctx context.Context, uid types.UID) error {
	for _, rec := range r.ofPod(uid) {
		if err := r.destroyContainer(ctx, rec); err != nil {
			return fmt.Errorf("pod %s: container %s: %w", rec.key, rec.Name, err)
		}
	}
	return r.RemoveSandbox(ctx, uid)
}

func (r *Runtime) destroyContainer(ctx context.Context, rec record) error {
	unlock, err := r.locks.lock(ctx, rec.uid)
	if err != nil {
		return err
	}
	defer unlock()
	if c, err := r.state(ctx, rec); err != nil {
		return err
	} else if c.State == pod.ContainerRunning {
		if err := r.killTask(ctx, rec.ID); err != nil {
			return err
		}
	}
	return r.remove(ctx, rec, true)
}
