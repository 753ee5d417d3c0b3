package plan

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

// What Kubernetes' tools read on the ReplicaSets of a Deployment.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas" // of the Deployment, when the set was last scaled
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"     // that and the surge
	appliedAnnotation  = "kubectl.kubernetes.io/last-applied-configuration"
)

// set is one ReplicaSet of a Deployment in the making of a plan.
type set struct {
	crew
	old *appsv1.ReplicaSet // as stored; nil: this plan makes it
	rs  appsv1.ReplicaSet  // as it will be; shares its template with old
	was int                // its size before this plan
	why string             // a reason to write it besides its size
}

// rollout is a Deployment in the making of a plan.
type rollout struct {
	s    *step
	d    *appsv1.Deployment
	want int // replicas
	// How far a rolling update may go above and below want.
	surge, unavailable int

	sets []*set // by name
	new  *set   // with the template as it now is; nil: none yet
	made bool   // new was not found but made

	strangers []*pod // of no set, on their way out
}

// deployment plans a Deployment: which ReplicaSets there are, how large each
// is, and their pods. One plan goes as far as it can without news from the nodes.
func (s *step) deployment(d *appsv1.Deployment, pods []*pod) {
	ro := newRollout(s, d)
	ro.muster(pods)
	ro.find()
	ro.scale()
	for ro.advance() {
	}
	ro.cleanUp()
	status := ro.status()
	for _, x := range ro.sets {
		ro.write(x)
		x.send()
	}
	ro.writeStatus(status)
	s.out.settled = s.out.settled && ro.settled(&status)
}

func newRollout(s *step, d *appsv1.Deployment) *rollout {
	ro := &rollout{s: s, d: d, want: int(ptr.Deref(d.Spec.Replicas, 1))}
	ro.surge, ro.unavailable = limits(d)
	return ro
}

// muster gathers the Deployment's ReplicaSets and their pods. A set that was
// lost with the store is made again from its pods; a pod that no set can be
// found for is ended.
func (ro *rollout) muster(pods []*pod) {
	bySet := map[string][]*pod{}
	for _, p := range pods {
		bySet[ownerName(p.obj)] = append(bySet[ownerName(p.obj)], p)
	}
	for _, k := range sortedKeys(ro.s.r.sets) {
		if ro.s.p.inGit(k) {
			continue // the repository gave the name to another
		}
		ro.add(ro.s.r.sets[k], *ro.s.r.sets[k], bySet[k.Name])
		delete(bySet, k.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(bySet)) {
		ro.recover(name, bySet[name])
	}
	slices.SortFunc(ro.sets, func(a, b *set) int { return cmp.Compare(a.rs.Name, b.rs.Name) })
}

func ownerName(p *corev1.Pod) string {
	if owner := metav1.GetControllerOfNoCopy(p); owner != nil {
		return owner.Name
	}
	return ""
}

func (ro *rollout) add(old *appsv1.ReplicaSet, rs appsv1.ReplicaSet, pods []*pod) *set {
	x := &set{old: old, rs: rs}
	x.rs.Annotations = maps.Clone(rs.Annotations)
	if x.rs.Annotations == nil {
		x.rs.Annotations = map[string]string{}
	}
	x.crew = crew{
		s: ro.s, key: schema.ObjectKey{Kind: schema.ReplicaSets, Namespace: rs.Namespace, Name: rs.Name},
		owner:    controller(metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"}, rs.Name, rs.UID),
		workload: deploymentWorkload + ro.d.Name, trace: traceOf(&x.rs), minReady: ro.d.Spec.MinReadySeconds,
		want: int(ptr.Deref(rs.Spec.Replicas, 1)),
	}
	x.template, x.was = &x.rs.Spec.Template, x.want
	x.take(pods)
	ro.sets = append(ro.sets, x)
	return x
}

// recover makes a ReplicaSet from the pods it left.
func (ro *rollout) recover(name string, pods []*pod) {
	k := schema.ObjectKey{Kind: schema.ReplicaSets, Namespace: ro.d.Namespace, Name: name}
	hash := pods[0].obj.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	live := 0
	for _, p := range pods {
		if !p.ending {
			live++
		}
	}
	if live == 0 || hash == "" || !strings.HasPrefix(name, ro.d.Name+"-") || ro.s.p.named(k) {
		for _, p := range pods {
			ro.s.end(p, objectKey(p.key()), "Killing", "Stopping pod: its ReplicaSet is not known")
		}
		ro.strangers = append(ro.strangers, pods...)
		return
	}
	from := pods[0].obj
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: maps.Clone(from.Labels), Annotations: written(from.Annotations)}}
	from.Spec.DeepCopyInto(&template.Spec)
	if ro.d.Spec.Template.Spec.NodeName == "" {
		template.Spec.NodeName = ""
	}
	withoutPriority(&template.Spec, &ro.d.Spec.Template.Spec)
	withoutAccount(&template.Spec, &ro.d.Spec.Template.Spec)
	rs := ro.newSet(name, hash, template)
	rs.CreationTimestamp = from.CreationTimestamp
	for _, p := range pods {
		if p.obj.CreationTimestamp.Before(&rs.CreationTimestamp) {
			rs.CreationTimestamp = p.obj.CreationTimestamp
		}
	}
	for _, t := range traces { // of the commit that made it, not of today's
		delete(rs.Annotations, t)
		if v, ok := from.Annotations[t]; ok {
			rs.Annotations[t] = v
		}
	}
	rs.Spec.Replicas = ptr.To(int32(min(live, math.MaxInt32)))
	ro.add(nil, rs, pods).why = "Recovered replica set " + name + " from its pods"
}

// newSet is a ReplicaSet of the Deployment, without replicas.
func (ro *rollout) newSet(name, hash string, template corev1.PodTemplateSpec) appsv1.ReplicaSet {
	d := ro.d
	k := schema.ObjectKey{Kind: schema.ReplicaSets, Namespace: d.Namespace, Name: name}
	selector := d.Spec.Selector.DeepCopy()
	if selector == nil {
		selector = &metav1.LabelSelector{}
	}
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	rs := appsv1.ReplicaSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: d.Namespace, UID: schema.UIDOf(k), CreationTimestamp: stamp(ro.s.now),
			Labels: maps.Clone(template.Labels), Annotations: passedOn(d.Annotations),
			OwnerReferences: []metav1.OwnerReference{controller(metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, d.Name, d.UID)},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To(int32(0)), MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: template},
	}
	return rs
}

// passedOn is a Deployment's annotations as its ReplicaSet carries them.
func passedOn(a map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range a {
		if k != appliedAnnotation && !strings.HasPrefix(k, "deployment.kubernetes.io/") {
			out[k] = v
		}
	}
	return out
}

// find picks the ReplicaSet that has the Deployment's template, the oldest of
// several, and makes one when there is none; not while the Deployment is paused.
func (ro *rollout) find() {
	for _, x := range ro.sets {
		if !sameTemplate(&ro.d.Spec.Template, &x.rs.Spec.Template) {
			continue
		}
		if ro.new == nil || x.rs.CreationTimestamp.Before(&ro.new.rs.CreationTimestamp) {
			ro.new = x
		}
	}
	if ro.new == nil && !ro.d.Spec.Paused {
		ro.make()
	}
	ro.number()
	if ro.new == nil {
		return
	}
	ro.new.rs.Spec.MinReadySeconds = ro.d.Spec.MinReadySeconds
	for k, v := range passedOn(ro.d.Annotations) {
		ro.new.rs.Annotations[k] = v
	}
	ro.new.trace = traceOf(ro.d)
}

func (ro *rollout) make() {
	for salt := 0; ; salt++ {
		hash := templateHash(&ro.d.Spec.Template, salt)
		name := ro.d.Name + "-" + hash
		if ro.named(name) {
			continue
		}
		template := *ro.d.Spec.Template.DeepCopy()
		template.Labels = maps.Clone(template.Labels)
		if template.Labels == nil {
			template.Labels = map[string]string{}
		}
		template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
		ro.new = ro.add(nil, ro.newSet(name, hash, template), nil)
		ro.made = true
		ro.strangers = slices.DeleteFunc(ro.strangers, func(p *pod) bool {
			own := ownerName(p.obj) == name
			if own {
				ro.new.rest = append(ro.new.rest, p)
			}
			return own
		})
		slices.SortFunc(ro.sets, func(a, b *set) int { return cmp.Compare(a.rs.Name, b.rs.Name) })
		return
	}
}

// named says whether a ReplicaSet of that name is already there.
func (ro *rollout) named(name string) bool {
	if ro.s.p.named(schema.ObjectKey{Kind: schema.ReplicaSets, Namespace: ro.d.Namespace, Name: name}) {
		return true
	}
	return slices.ContainsFunc(ro.sets, func(x *set) bool { return x.rs.Name == name })
}

// number gives the new set the highest revision, and those that have none, since
// they were recovered, one by age.
func (ro *rollout) number() {
	var highest int64
	var without []*set
	for _, x := range ro.oldest() {
		switch n := x.revision(); {
		case x == ro.new:
		case n == 0:
			without = append(without, x)
		default:
			highest = max(highest, n)
		}
	}
	for _, x := range without {
		highest++
		x.rs.Annotations[revisionAnnotation] = strconv.FormatInt(highest, 10)
	}
	if ro.new == nil || ro.new.revision() > highest {
		return
	}
	if was := ro.new.rs.Annotations[revisionAnnotation]; was != "" {
		ro.new.rs.Annotations[historyAnnotation] = remembered(ro.new.rs.Annotations[historyAnnotation], was)
	}
	ro.new.rs.Annotations[revisionAnnotation] = strconv.FormatInt(highest+1, 10)
}

// historyMost is how long the list of a set's former revisions may be, in
// characters, as in Kubernetes.
const historyMost = 2000

// remembered adds a revision to the list, from which the oldest go.
func remembered(history, revision string) string {
	if history == "" {
		return revision
	}
	history += "," + revision
	for len(history) > historyMost {
		_, history, _ = strings.Cut(history, ",")
	}
	return history
}

func (x *set) revision() int64 {
	n, _ := strconv.ParseInt(x.rs.Annotations[revisionAnnotation], 10, 64)
	return n
}

// oldest is the sets by age, then name.
func (ro *rollout) oldest() []*set {
	all := slices.Clone(ro.sets)
	slices.SortStableFunc(all, func(a, b *set) int {
		return a.rs.CreationTimestamp.Compare(b.rs.CreationTimestamp.Time)
	})
	return all
}

// sameTemplate compares what people wrote: the hash's label does not count.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	without := func(l map[string]string) map[string]string {
		l = maps.Clone(l)
		delete(l, appsv1.DefaultDeploymentUniqueLabelKey)
		return l
	}
	return maps.Equal(without(a.Labels), without(b.Labels)) && maps.Equal(a.Annotations, b.Annotations) &&
		equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

// cleanUp forgets old sets without pods, beyond revisionHistoryLimit.
func (ro *rollout) cleanUp() {
	limit := int(ptr.Deref(ro.d.Spec.RevisionHistoryLimit, 10))
	if !ro.d.Spec.Paused && !ro.complete() {
		return
	}
	var old []*set
	for _, x := range ro.sets {
		if x != ro.new {
			old = append(old, x)
		}
	}
	slices.SortStableFunc(old, func(a, b *set) int { return cmp.Compare(a.revision(), b.revision()) })
	for _, x := range old[:max(len(old)-limit, 0)] {
		if x.want > 0 || len(x.pods) > 0 || slices.ContainsFunc(slices.Concat(x.leaving, x.rest), func(p *pod) bool { return p.node != "" }) {
			continue // the pods that some node still has would call for it again
		}
		x.send() // ends the pods that no node has: left behind, they too would
		ro.sets = slices.DeleteFunc(ro.sets, func(y *set) bool { return y == x })
		if x.old != nil {
			ro.s.last(Change{Delete: &x.key, About: ro.s.r.key, Message: "Deleted replica set " + x.rs.Name + ": it is older than the history to keep"})
		}
	}
}
