package nodeagent

import (
	"cmp"
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

const (
	// usageEvery is the time between looks at what the containers take, as
	// metrics-server has it.
	usageEvery = 15 * time.Second
	// usageFirst is the time to the second look, which gives the first rates.
	usageFirst = 2 * time.Second
	// usageLimit bounds one look and one report.
	usageLimit = 10 * time.Second
	// usageLeast is the shortest window that a rate is told of: over less, a
	// container that is just starting would seem to take whole cores.
	usageLeast = time.Second
)

// Meter is what a Runtime may have besides, to say what its containers take.
// Without it nothing is told.
type Meter interface {
	// Meter reads the counters of the machine and of every container that runs.
	// One that ends meanwhile is left out.
	Meter(ctx context.Context) (Counters, error)
}

// Counters are what was read at one time.
type Counters struct {
	At         time.Time // with its monotonic clock
	Machine    Counter
	Containers []ContainerCounter
}

// A Counter is how much was taken up to now.
type Counter struct {
	CPU    uint64 // nanoseconds of a core, ever
	Memory uint64 // working set in bytes, now
}

// A ContainerCounter is the Counter of one running container.
type ContainerCounter struct {
	ID        string
	UID       types.UID // of the pod
	Pod       schema.PodKey
	Name      string
	StartedAt time.Time // zero: not known
	Counter
}

// UsageTaker is what a Link may have besides, to take what the node takes.
type UsageTaker interface {
	// ReportUsage returns once the gateway has it. The gateway may drop it.
	ReportUsage(ctx context.Context, u *schema.NodeUsage) error
}

// meterUsage tells the control plane what is taken, until ctx is done. A look
// that fails or a report that does not arrive is not made up for: the next one
// is as good.
func (a *agent) meterUsage(ctx context.Context) error {
	meter, ok := a.cfg.Runtime.(Meter)
	taker, takes := a.cfg.Link.(UsageTaker)
	if !ok || !takes {
		return nil
	}
	var rates rater
	failures := 0
	for next := time.Duration(0); ctx.Err() == nil; {
		pause(ctx, next)
		told, err := a.measure(ctx, meter, &rates)
		if err == nil && told != nil {
			err = a.tellUsage(ctx, taker, told)
		}
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() == nil:
			if failures++; failures == 2 { // once may be a control plane that is only just starting
				a.log.Warn("cannot tell what containers take; trying on", "err", err)
			}
		}
		if next = usageEvery; told == nil {
			next = usageFirst
		}
	}
	return ctx.Err()
}

// measure looks once. It is nil when there is nothing to compare with yet.
func (a *agent) measure(ctx context.Context, meter Meter, rates *rater) (*schema.NodeUsage, error) {
	ctx, cancel := context.WithTimeout(ctx, usageLimit)
	defer cancel()
	c, err := meter.Meter(ctx)
	if err != nil {
		return nil, err
	}
	told := rates.next(c)
	if told != nil {
		told.Node = a.cfg.Node
		for i := range told.Pods {
			told.Pods[i].Storage = a.stored(told.Pods[i].UID)
		}
	}
	return told, nil
}

func (a *agent) tellUsage(ctx context.Context, taker UsageTaker, told *schema.NodeUsage) error {
	ctx, cancel := context.WithTimeout(ctx, usageLimit)
	defer cancel()
	return taker.ReportUsage(ctx, told)
}

// A rater makes rates of counters. It keeps the last ones.
type rater struct {
	at         time.Time
	machine    Counter
	containers map[string]uint64 // CPU by container id
}

// next compares with the last counters; nil when there are none, or when too
// little time has passed since. It keeps nothing of what it returns.
func (r *rater) next(c Counters) *schema.NodeUsage {
	window := c.At.Sub(r.at)
	first := r.at.IsZero()
	if !first && window < usageLeast {
		return nil
	}
	told := &schema.NodeUsage{Time: c.At.UTC(), Window: window, Usage: schema.Usage{Memory: c.Machine.Memory}}
	told.CPU, _ = rateOf(r.machine.CPU, c.Machine.CPU, window)
	pods := map[types.UID]*schema.PodUsage{}
	now := make(map[string]uint64, len(c.Containers))
	for i := range c.Containers {
		x := &c.Containers[i]
		now[x.ID] = x.CPU
		u, ok := r.container(x, c.At, window)
		if !ok {
			continue
		}
		p := pods[x.UID]
		if p == nil {
			p = &schema.PodUsage{Namespace: x.Pod.Namespace, Name: x.Pod.Name, UID: x.UID}
			pods[x.UID] = p
		}
		p.Containers = append(p.Containers, u)
	}
	r.at, r.machine, r.containers = c.At, c.Machine, now
	if first {
		return nil
	}
	for _, p := range pods {
		slices.SortFunc(p.Containers, func(a, b schema.ContainerUsage) int { return cmp.Compare(a.Name, b.Name) })
		told.Pods = append(told.Pods, *p)
	}
	slices.SortFunc(told.Pods, func(a, b schema.PodUsage) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return told
}

// container is what one takes; false when it cannot be told yet. Of one that
// was started since the last look it is what it took from its start.
func (r *rater) container(c *ContainerCounter, at time.Time, window time.Duration) (schema.ContainerUsage, bool) {
	u := schema.ContainerUsage{Name: c.Name, Usage: schema.Usage{Memory: c.Memory}}
	before, known := r.containers[c.ID]
	if !known {
		runs := at.Sub(c.StartedAt)
		if c.StartedAt.IsZero() || runs < usageLeast || runs > window {
			return u, false // too young to say; or it ran all along, and the last look missed it
		}
		before, window, u.Window = 0, runs, runs
	}
	var ok bool
	u.CPU, ok = rateOf(before, c.CPU, window)
	return u, ok
}

// rateOf is in nanocores; false when the counter went back, as it does when
// something took its place.
func rateOf(before, now uint64, window time.Duration) (uint64, bool) {
	if now < before || window <= 0 {
		return 0, false
	}
	return uint64(float64(now-before) / window.Seconds()), true
}
