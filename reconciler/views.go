package reconciler

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// views is the whole picture the loop decides from.
type views struct {
	desired     *kv.View[schema.Object]
	assignments *kv.View[schema.Assignment]
	actual      *kv.View[kv.Actual]
}

func newViews(store *kv.Store) views {
	return views{
		desired:     kv.NewView(store, kv.Desired, kv.DecodeDesired),
		assignments: kv.NewView(store, kv.Assignments, kv.DecodeAssignment),
		actual:      kv.NewView(store, kv.Actuals, kv.DecodeActual),
	}
}

// run keeps the views until ctx is done.
func (v views) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return v.desired.Run(ctx) })
	g.Go(func() error { return v.assignments.Run(ctx) })
	g.Go(func() error { return v.actual.Run(ctx) })
	return g.Wait()
}

// whole says whether every view holds all there is: nothing may be removed,
// and nothing is planned, before that.
func (v views) whole() bool {
	return v.desired.Whole() && v.assignments.Whole() && v.actual.Whole()
}

// stored is the desired objects as the store holds them.
func (v views) stored() map[schema.ObjectKey]schema.Object {
	m := make(map[schema.ObjectKey]schema.Object, v.desired.Len())
	for e := range v.desired.All() {
		m[schema.KeyOf(e.Value)] = e.Value
	}
	return m
}
