package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"

	"github.com/pawl-project/pawl/schema"
)

const (
	// leaseFor is how long containerd keeps what a killed or failed pull fetched.
	leaseFor = pullWithin + 5*time.Minute
	// labelPull stands on a pull's lease: the image's name.
	labelPull = "pawl.dev/pull"
	// momentFor is how long containerd keeps what is needed for a moment: a view of
	// an image that is looked into.
	momentFor = time.Minute
	// labelMoment stands on the lease of such a moment: the run that took it.
	labelMoment = "pawl.dev/moment"
)

// moment is a lease for something short.
func (s *imageStore) moment() []leases.Opt {
	return []leases.Opt{
		leases.WithRandomID(), leases.WithExpiration(momentFor),
		leases.WithLabels(map[string]string{labelInstance: s.owner, labelMoment: s.run}),
	}
}

// dropMoments ends the leases for moments in which an earlier run was killed;
// containerd itself would end them only when it has something else to collect.
func (s *imageStore) dropMoments(ctx context.Context) error {
	left, err := s.client.LeasesService().List(ctx, fmt.Sprintf("labels.%q==%q,labels.%q", labelInstance, s.owner, labelMoment))
	if err != nil {
		return unavailable("look for the leases of an earlier run", err)
	}
	for _, lease := range left {
		if lease.Labels[labelMoment] == s.run {
			continue
		}
		if err := s.dropLease(ctx, lease); err != nil {
			return err
		}
	}
	return nil
}

// lease keeps containerd from collecting what a pull has fetched before anything
// refers to it. What earlier tries of the same pull have left is taken over, so
// that a try goes on where the last one stood, and there is one lease at most.
func (s *imageStore) lease(ctx context.Context, name string) (leases.Lease, error) {
	manager := s.client.LeasesService()
	labels := map[string]string{labelPull: fitting(labelPull, name)}
	if s.owner != "" {
		labels[labelInstance] = s.owner
	}
	lease, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseFor), leases.WithLabels(labels))
	if err != nil {
		return lease, unavailable("take a lease", err)
	}
	if s.owner == "" {
		return lease, nil
	}
	left, err := manager.List(ctx, fmt.Sprintf("labels.%q==%q,labels.%q==%q", labelInstance, s.owner, labelPull, labels[labelPull]))
	if err != nil {
		return lease, errors.Join(unavailable("look for the leases of earlier pulls", err), s.dropLease(ctx, lease))
	}
	for _, old := range left {
		if old.ID == lease.ID {
			continue
		}
		if err := s.takeOver(ctx, lease, old); err != nil {
			return lease, errors.Join(unavailable("take over an earlier pull", err), s.dropLease(ctx, lease))
		}
	}
	return lease, nil
}

func (s *imageStore) takeOver(ctx context.Context, lease, old leases.Lease) error {
	manager := s.client.LeasesService()
	held, err := manager.ListResources(ctx, old)
	if err != nil && !gone(err) {
		return err
	}
	for _, r := range held {
		if err := manager.AddResource(ctx, lease, r); err != nil && !gone(err) {
			return err
		}
	}
	if err := manager.Delete(ctx, old); err != nil && !gone(err) {
		return err
	}
	return nil
}

// endLease lets go of what a pull holds, unless another try may heal it and is
// going to come: then it is kept for that one.
func (s *imageStore) endLease(ctx context.Context, lease leases.Lease, cause error) error {
	if s.owner != "" && errors.Is(classify(cause), schema.ErrUnavailable) {
		return nil
	}
	return s.dropLease(ctx, lease)
}

func (s *imageStore) dropLease(ctx context.Context, lease leases.Lease) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWithin)
	defer cancel()
	if err := s.client.LeasesService().Delete(ctx, lease); err != nil && !gone(err) {
		return unavailable("give back a lease", err)
	}
	return nil
}
