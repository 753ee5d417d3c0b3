package reconciler

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/pawl-project/pawl/reconciler/plan"
	"github.com/pawl-project/pawl/schema"
)

// What says of itself that it does not change (immutable: true) is held to it
// twice: in the push, against the revision that stands, so that the pusher hears
// of it; and when a revision is taken up, against the store, which also knows
// what stood before the daemon started, and sees commits that no push brought.

// stand has pushes judged against what is locked in a revision.
func (in *intake) stand(objects []schema.Object) {
	locked := map[schema.ObjectKey]schema.Object{}
	for _, o := range objects {
		if plan.Locked(o) {
			locked[schema.KeyOf(o)] = o
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.locked = locked
}

// unlocked refuses what a push changes of it.
func (in *intake) unlocked(objects []schema.Object) error {
	in.mu.Lock()
	locked := in.locked
	in.mu.Unlock()
	same := func(a, b *corev1.Secret) bool { return equality.Semantic.DeepEqual(a.Data, b.Data) }
	if faults := plan.Unlocked(objects, func(k schema.ObjectKey) schema.Object { return locked[k] }, same); len(faults) > 0 {
		return &schema.Refusal{Faults: faults}
	}
	return nil
}

// holdLocked turns an accepted commit into a refused one when it changes what is
// locked in the store.
func (l *loop) holdLocked(v *verdict) {
	if v.revision == nil || len(v.created)+len(v.changed)+len(v.removed) > 0 {
		return // refused, or begun: what it changed stands already
	}
	stored := l.views.stored()
	faults := plan.Unlocked(v.revision.Objects, func(k schema.ObjectKey) schema.Object { return stored[k] }, l.sealer.Same)
	if len(faults) == 0 {
		return
	}
	v.revision, v.refusal = nil, &schema.Refusal{Faults: faults}
	l.log.Warn("commit refused, the last good revision stands", "commit", short(v.commit.ID), "faults", len(faults), "first", faults[0].String())
}
