package plan

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// barePod plans a Pod that stands in the repository. One whose manifest changed
// is stopped and, once it is gone, made again; one that ended for good is left
// as it is until then.
func (s *step) barePod(d *corev1.Pod, pods []*pod) {
	k := podKey(d)
	if p := living(pods); p != nil {
		s.liveBarePod(d, p)
		return
	}
	if len(pods) > 0 { // its name is not free yet
		s.wait(s.r.key, "waiting for the pod of that name to end on node "+string(pods[0].node))
		return
	}
	e := s.p.pods[k]
	if e != nil && (!e.rooted || slices.ContainsFunc(e.pods, func(p *pod) bool { return p.node != "" })) {
		s.wait(s.r.key, "another pod has that name")
		return
	}
	w := &wanted{pod: s.newBarePod(d), bare: true, about: s.r.key, event: "Scheduled"}
	if e != nil { // a pod of that name was, and is gone
		w.freed, w.forget = e.gone, e.report != nil || e.record != nil
	}
	s.enqueue(w)
}

func (s *step) liveBarePod(d *corev1.Pod, p *pod) {
	switch {
	case p.node == "":
		s.recorded(d, p)
	case !sameManifest(d, p.obj):
		s.end(p, s.r.key, "Killing", "Stopping pod: its manifest changed")
	default:
		s.keepGoing(p)
		if ready, _ := p.ready(); !ready && !p.finished() {
			s.out.settled = false
		}
	}
}

func living(pods []*pod) *pod {
	for _, p := range pods {
		if !p.ending {
			return p
		}
	}
	return nil
}

// recorded goes on with a pod that has no node yet.
func (s *step) recorded(d *corev1.Pod, p *pod) {
	w := &wanted{bare: true, about: s.r.key, event: "Scheduled", record: p.obj}
	if sameManifest(d, p.obj) {
		w.pod = unplaced(p.obj)
	} else {
		w.pod = s.newBarePod(d)
	}
	s.enqueue(w)
}

func (s *step) newBarePod(d *corev1.Pod) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: d.Name, Namespace: d.Namespace,
			UID: schema.PodUID(podKey(d), s.now), CreationTimestamp: stamp(s.now),
			Labels: maps.Clone(d.Labels), Annotations: maps.Clone(d.Annotations),
		},
	}
	delete(p.Annotations, AnnotationWorkload)
	d.Spec.DeepCopyInto(&p.Spec)
	s.p.identify(p.Namespace, &p.Spec)
	return p
}

// sameManifest says whether a pod was made of the manifest as it now is.
func sameManifest(d, made *corev1.Pod) bool {
	if !maps.Equal(d.Labels, made.Labels) || !maps.Equal(written(d.Annotations), written(made.Annotations)) {
		return false
	}
	spec := made.Spec
	if d.Spec.NodeName == "" {
		spec.NodeName = ""
	}
	withoutPriority(&spec, &d.Spec)
	withoutAccount(&spec, &d.Spec)
	return equality.Semantic.DeepEqual(d.Spec, spec)
}

// written is the annotations without those that Pawl puts on what it makes.
func written(a map[string]string) map[string]string {
	a = maps.Clone(a)
	for _, k := range traces {
		delete(a, k)
	}
	delete(a, AnnotationWorkload)
	return a
}
