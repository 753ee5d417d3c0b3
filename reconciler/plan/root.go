package plan

import (
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// AnnotationWorkload stands on the pods of a Deployment and names it, as
// Deployment/web: their owner is a ReplicaSet that nobody knows any more once
// the store is lost.
const AnnotationWorkload = "pawl.dev/workload"

const deploymentWorkload = "Deployment/"

// traces are the annotations that lead back to Git.
var traces = []string{schema.AnnotationRevision, schema.AnnotationSource, schema.AnnotationAuthor}

// A root is an object that the repository may hold, with all that was made for
// it. It stays after the object left, until nothing of it is left.
type root struct {
	key     schema.ObjectKey
	desired schema.Object // nil: not in the repository
	status  schema.Object // as Plan wrote it; nil: none
	sets    map[schema.ObjectKey]*appsv1.ReplicaSet
	pods    map[schema.PodKey]*entry

	out outcome
}

func (r *root) empty() bool {
	return r.desired == nil && r.status == nil && len(r.sets) == 0 && len(r.pods) == 0
}

// outcome is what the last look at a root decided.
type outcome struct {
	cleared []Change // by the queue: what stands where pods will be reported
	first   []Change // before its pods are placed
	placed  []Change // by the queue
	last    []Change // after: statuses, and what is deleted
	queue   []*wanted
	made    []schema.PodKey             // names given to pods
	waiting map[schema.ObjectKey]string // what cannot go on, and why
	pending map[schema.ObjectKey]string // the same of the queue's pods
	recheck time.Time
	settled bool
	// unrecorded: a pod of the queue is new in every plan until it is recorded.
	unrecorded bool
}

// rootOfPod finds the root of a pod by what the pod says of itself. It is not ok
// when something owns the pod that Pawl does not plan: such a pod is left alone.
func rootOfPod(p *corev1.Pod) (k schema.ObjectKey, ok bool) {
	owner := metav1.GetControllerOfNoCopy(p)
	if owner == nil {
		return schema.ObjectKey{Kind: schema.Pods, Namespace: p.Namespace, Name: p.Name}, true
	}
	if name, ok := strings.CutPrefix(p.Annotations[AnnotationWorkload], deploymentWorkload); ok {
		return schema.ObjectKey{Kind: schema.Deployments, Namespace: p.Namespace, Name: name}, true
	}
	switch owner.Kind {
	case "ReplicaSet":
		return schema.ObjectKey{Kind: schema.ReplicaSets, Namespace: p.Namespace, Name: owner.Name}, true
	case "ReplicationController":
		return schema.ObjectKey{Kind: schema.ReplicationControllers, Namespace: p.Namespace, Name: owner.Name}, true
	default:
		return schema.ObjectKey{}, false
	}
}

// rootOfSet finds the Deployment that a ReplicaSet was made for.
func rootOfSet(rs *appsv1.ReplicaSet) (schema.ObjectKey, bool) {
	owner := metav1.GetControllerOfNoCopy(rs)
	if owner == nil || owner.Kind != "Deployment" {
		return schema.ObjectKey{}, false
	}
	return schema.ObjectKey{Kind: schema.Deployments, Namespace: rs.Namespace, Name: owner.Name}, true
}

// claims lists the Deployments that may have made a ReplicaSet, or pods for one,
// of the name of an object in the repository: a ReplicaSet is named after its
// Deployment, a dash and a hash.
func (p *Planner) claims(k schema.ObjectKey) []schema.ObjectKey {
	if k.Kind != schema.ReplicaSets {
		return nil
	}
	var all []schema.ObjectKey
	for i := range k.Name {
		if k.Name[i] != '-' {
			continue
		}
		d := schema.ObjectKey{Kind: schema.Deployments, Namespace: k.Namespace, Name: k.Name[:i]}
		if p.roots[d] != nil {
			all = append(all, d)
		}
	}
	return all
}

// look plans one root. What it decides depends on nothing but the root, now,
// and the names that others hold.
func (p *Planner) look(r *root, now time.Time) outcome {
	s := &step{p: p, r: r, now: now}
	s.out.settled = true
	pods := s.sweep()
	switch d := r.desired.(type) {
	case nil:
		s.abandon(pods)
	case *appsv1.Deployment:
		s.deployment(d, pods)
	case *appsv1.ReplicaSet:
		s.replicaSet(d, pods)
	case *corev1.ReplicationController:
		s.replicationController(d, pods)
	case *corev1.Pod:
		s.barePod(d, pods)
	}
	return s.out
}

// step is one look at one root.
type step struct {
	p   *Planner
	r   *root
	now time.Time
	out outcome
}

// abandon removes all that was made for what is not in the repository any more.
func (s *step) abandon(pods []*pod) {
	if s.p.keep {
		s.out.settled = len(pods) == 0
		return
	}
	for _, p := range pods {
		s.end(p, objectKey(p.key()), "Killing", "Stopping pod: "+s.r.key.String()+" is not in the repository")
	}
	for _, k := range sortedKeys(s.r.sets) {
		if s.p.inGit(k) {
			continue // the key is another's now, who overwrites it
		}
		s.last(Change{Delete: &k, About: s.r.key, Message: "its Deployment is not in the repository"})
	}
	if s.r.status != nil {
		k := s.r.key
		s.last(Change{Delete: &k, About: k, Message: "it is not in the repository"})
	}
}

// sweep takes stock of the root's pods, lets go of those that are gone, and ends
// what is on a node where it should not be. It returns the others by name, those
// that are ending included.
func (s *step) sweep() []*pod {
	keys := slices.SortedFunc(maps.Keys(s.r.pods), comparePodKeys)
	var pods []*pod
	for _, k := range keys {
		e := s.r.pods[k]
		s.letGo(e)
		for _, p := range e.pods {
			if p.surplus && !(s.p.keep && s.r.desired == nil) {
				s.first(Change{
					Assign: ended(p, s.now), About: objectKey(k), UID: p.obj.UID, Type: corev1.EventTypeWarning, Event: "Killing",
					Message: "Stopping pod on node " + string(p.node) + ": it belongs on node " + string(e.winner().node),
				})
				s.out.settled = false
			}
			if !p.surplus {
				pods = append(pods, s.driven(p))
			}
			if p.ending {
				s.out.settled = false
			}
			if p.ending && !p.assigned {
				s.first(Change{Assign: asReported(p), About: objectKey(k), Message: "the assignment of the ending pod was lost"})
			}
		}
	}
	return pods
}

// letGo deletes what the store holds of a pod that is gone from its node.
func (s *step) letGo(e *entry) {
	if e.report == nil || !e.report.Gone {
		return
	}
	if s.replaced(e) {
		return
	}
	about := objectKey(e.key)
	if e.gone != "" {
		s.first(Change{Unassign: &Unassign{Node: e.gone, Pod: e.key}, About: about, Message: "gone from node " + string(e.gone)})
	}
	s.first(Change{Delete: &about, About: about, Message: "gone from node " + string(e.report.Node)})
}

// replaced says whether a pod that is gone leaves its keys to a pod of the
// repository, which will be made under them at once.
func (s *step) replaced(e *entry) bool {
	return len(e.pods) == 0 && s.p.inGit(objectKey(e.key))
}

// end stops a pod gracefully; a pod that no node has is simply forgotten.
func (s *step) end(p *pod, about schema.ObjectKey, event, message string) {
	s.out.settled = false
	switch {
	case p.ending:
	case p.node == "" && s.p.inGit(objectKey(p.key())): // a pod of the repository takes the record over
	case p.node == "":
		k := objectKey(p.key())
		s.first(Change{Delete: &k, About: about, UID: p.obj.UID, Type: corev1.EventTypeNormal, Event: event, Message: message})
	default:
		s.first(Change{Assign: ended(p, s.now), About: about, UID: p.obj.UID, Type: corev1.EventTypeNormal, Event: event, Message: message})
	}
}

// keepGoing assigns again a pod whose assignment was lost, as its node reports it.
func (s *step) keepGoing(p *pod) {
	if p.assigned || p.node == "" {
		return
	}
	s.first(Change{
		Assign: asReported(p), About: s.r.key, Event: "Adopted",
		Message: "Adopted pod " + p.obj.Name + " that runs on node " + string(p.node),
	})
}

func (s *step) first(c Change) { s.out.first = append(s.out.first, c) }
func (s *step) last(c Change)  { s.out.last = append(s.out.last, c) }

func (s *step) wait(k schema.ObjectKey, why string) {
	if s.out.waiting == nil {
		s.out.waiting = map[schema.ObjectKey]string{}
	}
	s.out.waiting[k] = why
	s.out.settled = false
}

// again asks for another look at t.
func (s *step) again(t time.Time) {
	if s.out.recheck.IsZero() || t.Before(s.out.recheck) {
		s.out.recheck = t
	}
}
