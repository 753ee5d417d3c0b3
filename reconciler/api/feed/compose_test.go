package feed

import (
	"reflect"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

func at(n int64) time.Time { return time.Unix(1_790_000_000+n, 0) }

func newPod(uid types.UID, node string, phase corev1.PodPhase) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: uid, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}},
		Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase},
	}
}

func assigned(stored int64, node string, uid types.UID, ending bool) part[schema.Assignment] {
	p := newPod(uid, node, "")
	if ending {
		d := metav1.NewTime(at(stored))
		p.DeletionTimestamp = &d
	}
	return part[schema.Assignment]{schema.Assignment{Node: schema.NodeName(node), Pod: p}, at(stored)}
}

func reported(stored int64, node string, uid types.UID, phase corev1.PodPhase, gone bool) *part[schema.PodReport] {
	return &part[schema.PodReport]{schema.PodReport{Node: schema.NodeName(node), Pod: newPod(uid, node, phase), Gone: gone}, at(stored)}
}

func TestComposePod(t *testing.T) {
	type want struct {
		uid    types.UID // "": there is no such pod
		node   string
		phase  corev1.PodPhase
		ending bool
		stored int64
	}
	for name, c := range map[string]struct {
		assigned []part[schema.Assignment]
		report   *part[schema.PodReport]
		want     want
	}{
		"nothing":                      {},
		"assigned":                     {[]part[schema.Assignment]{assigned(1, "n1", "u1", false)}, nil, want{"u1", "n1", "Pending", false, 1}},
		"running":                      {[]part[schema.Assignment]{assigned(1, "n1", "u1", false)}, reported(2, "n1", "u1", "Running", false), want{"u1", "n1", "Running", false, 2}},
		"told to end":                  {[]part[schema.Assignment]{assigned(3, "n1", "u1", true)}, reported(2, "n1", "u1", "Running", false), want{"u1", "n1", "Running", true, 3}},
		"gone":                         {[]part[schema.Assignment]{assigned(3, "n1", "u1", true)}, reported(4, "n1", "u1", "Succeeded", true), want{}},
		"the report of the one before": {[]part[schema.Assignment]{assigned(3, "n1", "u2", false)}, reported(4, "n1", "u1", "Running", false), want{"u2", "n1", "Pending", false, 3}},
		"the one before is gone":       {[]part[schema.Assignment]{assigned(3, "n1", "u2", false)}, reported(4, "n1", "u1", "Failed", true), want{"u2", "n1", "Pending", false, 3}},
		"no assignment any more":       {nil, reported(4, "n1", "u1", "Failed", true), want{}},
		"assignment lost":              {nil, reported(4, "n1", "u1", "Running", false), want{"u1", "n1", "Running", false, 4}},
		"no node takes it":             {nil, reported(4, "", "u1", "Pending", false), want{"u1", "", "Pending", false, 4}},
		"two nodes, one ending":        {[]part[schema.Assignment]{assigned(5, "n1", "u1", true), assigned(4, "n2", "u2", false)}, reported(3, "n1", "u1", "Running", false), want{"u2", "n2", "Pending", false, 4}},
		"two nodes, one reported":      {[]part[schema.Assignment]{assigned(5, "n1", "u1", false), assigned(4, "n2", "u2", false)}, reported(6, "n2", "u2", "Running", false), want{"u2", "n2", "Running", false, 6}},
		"two nodes":                    {[]part[schema.Assignment]{assigned(5, "n2", "u2", false), assigned(4, "n1", "u1", false)}, nil, want{"u1", "n1", "Pending", false, 4}},
		"two nodes, one gone":          {[]part[schema.Assignment]{assigned(5, "n1", "u1", false), assigned(4, "n2", "u2", true)}, reported(6, "n1", "u1", "Failed", true), want{"u2", "n2", "Pending", true, 4}},
		"one uid, reported by another": {[]part[schema.Assignment]{assigned(5, "n1", "u1", false)}, reported(6, "n2", "u1", "Running", false), want{"u1", "n1", "Pending", false, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			p, stored := composePod(c.assigned, c.report)
			if p == nil {
				if c.want.uid != "" {
					t.Fatalf("no pod, want %+v", c.want)
				}
				return
			}
			got := want{p.UID, p.Spec.NodeName, p.Status.Phase, p.DeletionTimestamp != nil, stored.Unix() - at(0).Unix()}
			if got != c.want {
				t.Errorf("pod %+v, want %+v", got, c.want)
			}
			if p.Kind != "Pod" || p.APIVersion != "v1" || p.ManagedFields != nil {
				t.Errorf("it says it is %v, managed by %v", p.TypeMeta, p.ManagedFields)
			}
		})
	}
}

func TestAPendingPodIsScheduled(t *testing.T) {
	p, _ := composePod([]part[schema.Assignment]{assigned(1, "n1", "u1", false)}, nil)
	want := []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at(1))}}
	if !reflect.DeepEqual(p.Status.Conditions, want) {
		t.Errorf("conditions %v", p.Status.Conditions)
	}
}

func TestComposeWorkload(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{schema.AnnotationSource: "web.yaml:1"}}
	object := func(stored int64, o schema.Object) *part[schema.Object] { return &part[schema.Object]{o, at(stored)} }
	whole := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "planner's"}, Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{}}}
	for name, c := range map[string]struct {
		desired, actual *part[schema.Object]
		want            schema.Object
		stored          int64
	}{
		"nothing": {},
		"without a status": {
			object(1, &appsv1.Deployment{ObjectMeta: meta}), nil,
			&appsv1.Deployment{ObjectMeta: meta}, 1,
		},
		"deployment": {
			object(1, &appsv1.Deployment{ObjectMeta: meta}), object(2, &appsv1.Deployment{Status: appsv1.DeploymentStatus{Replicas: 3}}),
			&appsv1.Deployment{ObjectMeta: meta, Status: appsv1.DeploymentStatus{Replicas: 3}}, 2,
		},
		"status of before": {
			object(3, &corev1.ReplicationController{ObjectMeta: meta}), object(2, &corev1.ReplicationController{Status: corev1.ReplicationControllerStatus{Replicas: 3}}),
			&corev1.ReplicationController{ObjectMeta: meta, Status: corev1.ReplicationControllerStatus{Replicas: 3}}, 3,
		},
		"status of nothing":      {nil, object(2, &appsv1.Deployment{}), nil, 0},
		"planner's replica set":  {nil, object(2, whole), whole, 2},
		"manifest's replica set": {object(1, &appsv1.ReplicaSet{ObjectMeta: meta}), object(2, &appsv1.ReplicaSet{Status: appsv1.ReplicaSetStatus{Replicas: 1}}), &appsv1.ReplicaSet{ObjectMeta: meta, Status: appsv1.ReplicaSetStatus{Replicas: 1}}, 2},
		"both":                   {object(1, &appsv1.ReplicaSet{ObjectMeta: meta}), object(2, whole), &appsv1.ReplicaSet{ObjectMeta: meta}, 1},
		"of another kind":        {object(1, &corev1.Service{ObjectMeta: meta}), object(2, whole.DeepCopy()), &corev1.Service{ObjectMeta: meta}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, stored := composeWorkload(c.desired, c.actual)
			if c.want == nil {
				if got != nil {
					t.Errorf("there is %v", got)
				}
				return
			}
			if !reflect.DeepEqual(got, c.want) || !stored.Equal(at(c.stored)) {
				t.Errorf("%v of %v, want %v of %v", got, stored, c.want, at(c.stored))
			}
			for _, p := range []*part[schema.Object]{c.desired, c.actual} {
				if p != nil && got == p.value {
					t.Error("it is the view's own object")
				}
			}
		})
	}
}

func TestComposeNamespace(t *testing.T) {
	desired := &part[schema.Object]{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "u", Labels: map[string]string{"team": "a"}, CreationTimestamp: metav1.NewTime(at(5))}}, at(7)}
	for name, c := range map[string]struct {
		name      string
		desired   *part[schema.Object]
		oldest    time.Time
		populated bool
		exists    bool
		created   time.Time
		stored    time.Time
	}{
		"of a manifest":             {"shop", desired, at(1), true, true, at(5), at(7)},
		"of objects":                {"shop", nil, at(1), true, true, at(1), at(1)},
		"of nothing":                {"shop", nil, at(1), false, false, time.Time{}, time.Time{}},
		"the default one":           {"default", nil, at(2), false, true, at(2), at(2)},
		"the default one, all bare": {"default", nil, time.Time{}, false, true, time.Time{}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			o, stored := composeNamespace(c.name, c.desired, c.oldest, c.populated)
			if o == nil || !c.exists {
				if (o != nil) != c.exists {
					t.Fatalf("namespace %v", o)
				}
				return
			}
			n := o.(*corev1.Namespace)
			if n.Name != c.name || n.UID == "" || n.Status.Phase != corev1.NamespaceActive || n.Labels[corev1.LabelMetadataName] != c.name {
				t.Errorf("namespace %+v", n)
			}
			if !n.CreationTimestamp.Time.Equal(c.created) || !stored.Equal(c.stored) {
				t.Errorf("created %v, stored %v", n.CreationTimestamp, stored)
			}
		})
	}
	if l := desired.value.GetLabels(); len(l) != 1 {
		t.Errorf("the view's object was changed: %v", l)
	}
}

func TestComposeEventAndRevision(t *testing.T) {
	e := &corev1.Event{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web.1"}}
	o, stored := composeEvent(part[*corev1.Event]{e, at(3)})
	if o.GetUID() == "" || !o.GetCreationTimestamp().Time.Equal(at(3)) || !stored.Equal(at(3)) || e.UID != "" {
		t.Errorf("event %v of %v", o, stored)
	}
	settled := at(2)
	r, _ := composeRevision(part[*schema.RevisionRecord]{&schema.RevisionRecord{
		Commit: "abc", Author: "A", Subject: "web: 8", When: at(0), Result: schema.RevisionApplied, Seen: at(1), Settled: &settled, Changed: []string{"deployments/default/web"},
	}, at(3)})
	rev := r.(*schema.RevisionObject)
	if rev.Name != "abc" || rev.Namespace != "" || rev.Kind != "Revision" || rev.APIVersion != "pawl.dev/v1" || !rev.CreationTimestamp.Time.Equal(at(1)) {
		t.Errorf("metadata %+v %+v", rev.TypeMeta, rev.ObjectMeta)
	}
	if rev.Spec.Subject != "web: 8" || rev.Status.Result != schema.RevisionApplied || !rev.Status.Settled.Time.Equal(settled) || len(rev.Status.Changed) != 1 {
		t.Errorf("revision %+v", rev)
	}
	if c := rev.DeepCopy(); !reflect.DeepEqual(c, rev) || c.Status.Settled == rev.Status.Settled || &c.Status.Changed[0] == &rev.Status.Changed[0] {
		t.Errorf("copy %+v", c)
	}
}
