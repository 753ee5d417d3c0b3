package feed

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// A part is what one key of the store says, and when it was stored.
type part[T any] struct {
	value  T
	stored time.Time
}

// composePod makes the pod of one name from its assignments, one for each node
// that has one, and the newest report of that name, if there is one. It returns
// nil when there is no such pod, else the pod and when its newest part was stored.
//
// An assignment's pod has the status that its node reports of the same uid; until
// then it is Pending. Of two nodes' pods the one that is not ending counts, then
// the one that is reported, then the first by node. What is reported though
// nobody assigned it is a pod too, and so is one that the planner recorded
// because no node takes it. A pod that its node reports Gone is gone.
func composePod(assigned []part[schema.Assignment], report *part[schema.PodReport]) (*corev1.Pod, time.Time) {
	var live []part[schema.Assignment]
	released := false
	for _, a := range assigned {
		if reports(report, &a.value) && report.value.Gone {
			released = true
			continue
		}
		live = append(live, a)
	}
	if len(live) > 0 {
		a := slices.MinFunc(live, func(x, y part[schema.Assignment]) int {
			return cmp.Or(first(ending(x), ending(y)), first(!reports(report, &x.value), !reports(report, &y.value)), cmp.Compare(x.value.Node, y.value.Node))
		})
		return assignedPod(a, report)
	}
	if report == nil || report.value.Gone || released {
		return nil, time.Time{}
	}
	p := bare(&report.value.Pod)
	return p, report.stored
}

// first orders what is not so before what is.
func first(x, y bool) int {
	switch {
	case x == y:
		return 0
	case y:
		return -1
	default:
		return 1
	}
}

func ending(a part[schema.Assignment]) bool { return a.value.Pod.DeletionTimestamp != nil }

// reports says whether a report is of the pod of an assignment.
func reports(r *part[schema.PodReport], a *schema.Assignment) bool {
	return r != nil && r.value.Node == a.Node && r.value.Pod.UID == a.Pod.UID
}

func assignedPod(a part[schema.Assignment], report *part[schema.PodReport]) (*corev1.Pod, time.Time) {
	p := bare(&a.value.Pod)
	if !reports(report, &a.value) {
		p.Status = pending(a.stored)
		return p, a.stored
	}
	p.Status = report.value.Pod.Status
	return p, later(a.stored, report.stored)
}

// pending is the status of a pod that its node has not spoken of yet.
func pending(since time.Time) corev1.PodStatus {
	return corev1.PodStatus{
		Phase: corev1.PodPending,
		Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(since.Truncate(time.Second)),
		}},
	}
}

// bare is a copy of a pod's struct that says what it is.
func bare(p *corev1.Pod) *corev1.Pod {
	c := *p
	c.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	c.ManagedFields = nil
	return &c
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
