package plan

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// Restart ends a pod by hand. What wants it makes it again: its ReplicaSet
// under another name, the repository under the same one once it is gone. The
// uid says which pod is meant, "" the one of that name that lives, or else the
// one that is ending. The grace period is in seconds, nil: the pod's own; of a
// pod that is ending already only a shorter one counts, and no change at all
// means that it ends as it is.
//
// The pod is returned as it will be. The error wraps schema.ErrNotFound when no
// pod has the name, schema.ErrConflict when it has another uid, and
// schema.ErrRefused when something owns the pod that Pawl does not plan.
func (p *Planner) Restart(k schema.PodKey, uid types.UID, grace *int64, why string, now time.Time) ([]Change, *corev1.Pod, error) {
	e := p.pods[k]
	if e == nil || len(e.pods) == 0 {
		return nil, nil, fmt.Errorf("pod %s: %w", k, schema.ErrNotFound)
	}
	x := e.meant(uid)
	if x == nil {
		return nil, nil, fmt.Errorf("pod %s has the uid %s, not %s: %w", k, e.pods[0].obj.UID, uid, schema.ErrConflict)
	}
	if !e.rooted {
		return nil, nil, fmt.Errorf("pod %s is owned by something that Pawl does not keep: %w", k, schema.ErrRefused)
	}
	about := objectKey(k)
	c := Change{About: about, UID: x.obj.UID, Type: corev1.EventTypeNormal, Event: "Killing", Message: "Stopping pod: " + why}
	if x.node == "" {
		c.Delete = &about
		gone := x.obj.DeepCopy()
		at, none := stamp(now), int64(0)
		gone.DeletionTimestamp, gone.DeletionGracePeriodSeconds = &at, &none
		return []Change{c}, gone, nil
	}
	a := ended(x, now)
	if x.ending {
		a.Pod.DeletionTimestamp, a.Pod.DeletionGracePeriodSeconds = x.obj.DeletionTimestamp, x.obj.DeletionGracePeriodSeconds
	}
	if g := a.Pod.DeletionGracePeriodSeconds; grace != nil && (!x.ending || g == nil || *grace < *g) {
		shorter := max(*grace, 0)
		a.Pod.DeletionGracePeriodSeconds = &shorter
	} else if x.ending {
		return nil, x.whole(a), nil
	}
	c.Assign = a
	return []Change{c}, x.whole(a), nil
}

// meant finds the pod that an order is about.
func (e *entry) meant(uid types.UID) *pod {
	if uid == "" {
		if w := e.winner(); w != nil {
			return w
		}
		return e.pods[0]
	}
	for _, x := range e.pods {
		if x.obj.UID == uid {
			return x
		}
	}
	return nil
}

// whole is the pod as ordered, with the status that its node reports.
func (p *pod) whole(a *schema.Assignment) *corev1.Pod {
	o := a.Pod.DeepCopy()
	if p.status != nil {
		p.status.DeepCopyInto(&o.Status)
	}
	return o
}
