package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

// crew is the pods of one ReplicaSet or ReplicationController, and how many
// there should be.
type crew struct {
	s        *step
	key      schema.ObjectKey
	owner    metav1.OwnerReference
	template *corev1.PodTemplateSpec
	workload string            // AnnotationWorkload of its pods; "": none
	trace    map[string]string // the annotations that lead back to Git
	minReady int32             // seconds

	want    int
	pods    []*pod // that count: neither ending nor finished
	leaving []*pod // that this plan ends, the one that will be missed most last
	rest    []*pod // that count no more
	fresh   int    // how many pods this plan makes
}

// replaceAfter is how old a pod that ended by itself must be to be replaced, so
// that pods which fail at once are not made as fast as the nodes can refuse them.
const replaceAfter = 10 * time.Second

// take sorts the owner's pods into those that count and the rest, and removes
// what ended by itself, so that it is replaced.
func (c *crew) take(pods []*pod) {
	for _, p := range pods {
		switch {
		case p.ending:
			c.rest = append(c.rest, p)
		case c.s.p.inGit(objectKey(p.key())):
			c.s.end(p, c.key, "SuccessfulDelete", "Deleted pod: "+p.obj.Name+": the repository gave its name to another")
			c.rest = append(c.rest, p)
		case p.finished():
			if at := p.obj.CreationTimestamp.Add(replaceAfter); c.s.now.Before(at) {
				c.pods = append(c.pods, p)
				c.s.again(at)
				continue
			}
			c.s.end(p, c.key, "SuccessfulDelete", "Deleted pod: "+p.obj.Name+", which ended as "+string(p.phase()))
			c.rest = append(c.rest, p)
		default:
			c.pods = append(c.pods, p)
		}
	}
}

// meet makes or ends pods until there are as many as wanted. A plan that changes
// its mind keeps the pods it meant to end.
func (c *crew) meet() {
	if n := len(c.pods) - c.want; n > 0 {
		c.dismiss(n)
	}
	for len(c.pods) < c.want {
		if n := len(c.leaving); n > 0 {
			c.pods = append(c.pods, c.leaving[n-1])
			c.leaving = c.leaving[:n-1]
			continue
		}
		c.pods = append(c.pods, &pod{obj: c.recruit(), fresh: true})
		c.fresh++
	}
}

// dismiss picks the n pods that will be missed least.
func (c *crew) dismiss(n int) {
	slices.SortStableFunc(c.pods, c.lessMissed())
	for _, p := range c.pods[:n] {
		if !p.fresh { // else it never was
			c.leaving = append(c.leaving, p)
		}
	}
	c.pods = slices.Clone(c.pods[n:])
}

// lessMissed orders pods as Kubernetes ends them: without a node before with,
// pending before running, not ready before ready, not yet available before
// available, from a node that has more of them before one that has fewer,
// shortly ready before long ready, often restarted before seldom, new before
// old; then by name.
func (c *crew) lessMissed() func(a, b *pod) int {
	onNode := map[schema.NodeName]int{}
	for _, p := range c.pods {
		onNode[p.node]++
	}
	return func(a, b *pod) int {
		readyA, sinceA := a.ready()
		readyB, sinceB := b.ready()
		return cmp.Or(
			falseFirst(a.node != "", b.node != ""),
			cmp.Compare(phaseRank(a), phaseRank(b)),
			falseFirst(readyA, readyB),
			falseFirst(first(a.available(c.minReady, c.s.now)), first(b.available(c.minReady, c.s.now))),
			cmp.Compare(onNode[b.node], onNode[a.node]),
			sinceB.Compare(sinceA),
			cmp.Compare(restarts(b), restarts(a)),
			b.obj.CreationTimestamp.Compare(a.obj.CreationTimestamp.Time),
			cmp.Compare(a.obj.Name, b.obj.Name),
		)
	}
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

func first[A, B any](a A, _ B) A { return a }

func phaseRank(p *pod) int {
	if p.finished() {
		return -1
	}
	switch p.phase() {
	case corev1.PodPending:
		return 0
	case corev1.PodUnknown:
		return 1
	default:
		return 2
	}
}

func restarts(p *pod) int32 {
	if p.status == nil {
		return 0
	}
	var most int32
	for _, c := range p.status.ContainerStatuses {
		most = max(most, c.RestartCount)
	}
	return most
}

// recruit makes a pod of the template.
func (c *crew) recruit() *corev1.Pod {
	base, name := podName(c.key.Name, c.owner.UID, c.s.now, c.fresh, func(name string) bool {
		return c.s.taken(schema.PodKey{Namespace: c.key.Namespace, Name: name})
	})
	k := schema.PodKey{Namespace: c.key.Namespace, Name: name}
	c.s.p.made[k] = true
	c.s.out.made = append(c.s.out.made, k)
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, GenerateName: base, Namespace: k.Namespace,
			UID: schema.PodUID(k, c.s.now), CreationTimestamp: stamp(c.s.now),
			Labels: maps.Clone(c.template.Labels), Annotations: c.annotations(),
			OwnerReferences: []metav1.OwnerReference{c.owner},
		},
	}
	c.template.Spec.DeepCopyInto(&p.Spec)
	c.s.p.identify(p.Namespace, &p.Spec)
	return p
}

func (c *crew) annotations() map[string]string {
	a := map[string]string{}
	maps.Copy(a, c.template.Annotations)
	maps.Copy(a, c.trace)
	delete(a, AnnotationWorkload)
	if c.workload != "" {
		a[AnnotationWorkload] = c.workload
	}
	return a
}

// taken: no two pods of a namespace have one name, whoever owns them.
func (s *step) taken(k schema.PodKey) bool {
	return s.p.pods[k] != nil || s.p.made[k] || s.p.inGit(objectKey(k))
}

// send ends the pods that leave, puts those that have no node into the queue,
// and takes on the ones whose assignment was lost.
func (c *crew) send() {
	for _, p := range c.leaving {
		c.s.end(p, c.key, "SuccessfulDelete", "Deleted pod: "+p.obj.Name)
	}
	for _, p := range c.pods {
		switch {
		case p.fresh:
			c.s.enqueue(&wanted{pod: p.obj, about: c.key, event: "SuccessfulCreate", told: createdPod(p.obj.Name)})
		case p.node == "":
			c.s.enqueue(&wanted{pod: unplaced(p.obj), record: p.obj, about: objectKey(p.key()), event: "Scheduled"})
		default:
			c.s.keepGoing(p)
		}
	}
}

func (s *step) enqueue(w *wanted) {
	w.asked = w.pod.Spec
	s.out.queue = append(s.out.queue, w)
	s.out.settled = false
}

// unplaced is a copy of a recorded pod to be assigned.
func unplaced(record *corev1.Pod) *corev1.Pod {
	p := record.DeepCopy()
	p.Status = corev1.PodStatus{}
	return p
}

// headcount is the crew as a status counts it.
type headcount struct {
	replicas, labeled, ready, available int32
}

func (c *crew) count() headcount {
	var n headcount
	for _, p := range c.pods {
		if p.finished() {
			continue
		}
		n.replicas++
		if covers(c.template.Labels, p.obj.Labels) {
			n.labeled++
		}
		if ready, _ := p.ready(); ready {
			n.ready++
		}
		switch ok, at := p.available(c.minReady, c.s.now); {
		case ok:
			n.available++
		case !at.IsZero():
			c.s.again(at)
		}
	}
	return n
}

func covers(want, have map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// controller is the reference from what an object owns back to it.
func controller(gvk metav1.TypeMeta, name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: gvk.APIVersion, Kind: gvk.Kind, Name: name, UID: uid,
		Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
	}
}

// traceOf picks the annotations that lead back to Git.
func traceOf(o schema.Object) map[string]string {
	t := map[string]string{}
	for _, k := range traces {
		if v, ok := o.GetAnnotations()[k]; ok {
			t[k] = v
		}
	}
	return t
}

// statusMeta is the metadata of a status in the store: enough to know what it
// is the status of.
func statusMeta(o schema.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID()}
}

func available(n headcount, want int) string {
	return fmt.Sprintf("%d of %d replicas are available", n.available, want)
}
