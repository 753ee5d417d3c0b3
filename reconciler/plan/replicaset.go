package plan

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

// replicaSet plans a ReplicaSet that stands in the repository.
func (s *step) replicaSet(rs *appsv1.ReplicaSet, pods []*pod) {
	c := s.crewOf(rs, &rs.Spec.Template, ptr.Deref(rs.Spec.Replicas, 1), rs.Spec.MinReadySeconds)
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		s.wait(s.r.key, "spec.selector: "+err.Error())
		return
	}
	n := s.run(c, selector, pods)
	status := &appsv1.ReplicaSet{TypeMeta: rs.TypeMeta, ObjectMeta: statusMeta(rs)}
	status.Status = appsv1.ReplicaSetStatus{
		Replicas: n.replicas, FullyLabeledReplicas: n.labeled, ReadyReplicas: n.ready, AvailableReplicas: n.available,
		ObservedGeneration: rs.Generation,
	}
	if old, ok := s.r.status.(*appsv1.ReplicaSet); !ok || !equality.Semantic.DeepEqual(old.Status, status.Status) {
		s.last(Change{Put: status, About: s.r.key, Message: available(n, c.want)})
	}
}

// replicationController plans a ReplicationController.
func (s *step) replicationController(rc *corev1.ReplicationController, pods []*pod) {
	template := rc.Spec.Template
	if template == nil {
		s.wait(s.r.key, "spec.template: there is none")
		return
	}
	c := s.crewOf(rc, template, ptr.Deref(rc.Spec.Replicas, 1), rc.Spec.MinReadySeconds)
	match := rc.Spec.Selector
	if len(match) == 0 {
		match = template.Labels
	}
	n := s.run(c, labels.SelectorFromSet(match), pods)
	status := &corev1.ReplicationController{TypeMeta: rc.TypeMeta, ObjectMeta: statusMeta(rc)}
	status.Status = corev1.ReplicationControllerStatus{
		Replicas: n.replicas, FullyLabeledReplicas: n.labeled, ReadyReplicas: n.ready, AvailableReplicas: n.available,
		ObservedGeneration: rc.Generation,
	}
	if old, ok := s.r.status.(*corev1.ReplicationController); !ok || !equality.Semantic.DeepEqual(old.Status, status.Status) {
		s.last(Change{Put: status, About: s.r.key, Message: available(n, c.want)})
	}
}

func (s *step) crewOf(o schema.Object, template *corev1.PodTemplateSpec, want, minReady int32) *crew {
	version, kind := o.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	return &crew{
		s: s, key: s.r.key, template: template, trace: traceOf(o), want: int(want), minReady: minReady,
		owner: controller(metav1.TypeMeta{APIVersion: version, Kind: kind}, o.GetName(), o.GetUID()),
	}
}

// run gives the crew its pods, those that the selector does not match excepted:
// they belonged to it before the selector changed.
func (s *step) run(c *crew, selector labels.Selector, pods []*pod) headcount {
	var own []*pod
	for _, p := range pods {
		if selector.Matches(labels.Set(p.obj.Labels)) {
			own = append(own, p)
			continue
		}
		s.end(p, c.key, "SuccessfulDelete", "Deleted pod: "+p.obj.Name+", which the selector does not match")
	}
	c.take(own)
	c.meet()
	c.send()
	n := c.count()
	if int(n.available) != c.want || int(n.replicas) != c.want {
		s.out.settled = false
	}
	return n
}
