package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

var (
	admin  = access.User{Name: "ada", Groups: []string{"pawl:admin", "system:authenticated"}, Role: access.Admin}
	viewer = access.User{Name: "vic", Groups: []string{"pawl:view", "system:authenticated"}, Role: access.View}
)

// A door is a front door in a test, with what stands behind it.
type door struct {
	t       testing.TB
	cache   *cache.Cache
	server  *Server
	http    *httptest.Server
	restart []schema.PodKey // what RestartPod was asked for
}

// newDoor opens a front door over an empty cache. Tokens: "admin" and "view".
func newDoor(t testing.TB, change ...func(*Options)) *door {
	d := &door{t: t, cache: cache.New(cache.Options{})}
	o := Options{
		Cache: d.cache, Repository: "http://127.0.0.1:7420/git/cluster.git", Branch: "main", Version: "0.3.0",
		OpenSecret: openFixture,
		RestartPod: d.restartPod,
		Validate:   validateFixture,
		Checks:     func() []Check { return []Check{{Name: "store"}, {Name: "feed"}} },
	}
	for _, c := range change {
		c(&o)
	}
	d.server = New(o)
	d.http = httptest.NewServer(guard(d.server))
	t.Cleanup(func() { d.server.Close(); d.http.Close() })
	return d
}

// guard stands for access.Guard.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "Bearer admin":
			r = r.WithContext(access.WithUser(r.Context(), admin))
		case "Bearer view":
			r = r.WithContext(access.WithUser(r.Context(), viewer))
		}
		next.ServeHTTP(w, r)
	})
}

func openFixture(s *corev1.Secret) (*corev1.Secret, error) {
	o := s.DeepCopy()
	delete(o.Annotations, kv.AnnotationSealed)
	plain, err := base64.StdEncoding.DecodeString(string(s.Data["sealed.age"]))
	o.Data = map[string][]byte{"word": plain}
	return o, err
}

func (d *door) restartPod(_ context.Context, p schema.PodKey, _ types.UID, grace *int64) (*corev1.Pod, error) {
	d.restart = append(d.restart, p)
	k := schema.ObjectKey{Kind: schema.Pods, Namespace: p.Namespace, Name: p.Name}
	i, ok := d.cache.Get(k)
	if !ok {
		return nil, schema.ErrNotFound
	}
	pod := ending(i.Object().(*corev1.Pod), metav1.Now(), grace)
	d.cache.Put(k, pod.DeepCopy(), 0)
	d.cache.Delete(k, 0)
	return pod, nil
}

// validateFixture stands for the checks of a push: replicas below zero are wrong,
// and so is a node that somebody chose.
func validateFixture(_ context.Context, text []byte) (schema.Object, []schema.Fault, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(text, &kind); err != nil {
		return nil, nil, err
	}
	info, ok := schema.LookupGVK(kind.GroupVersionKind())
	if !ok {
		return nil, nil, &schema.Refusal{Faults: []schema.Fault{{Problem: "unknown kind"}}}
	}
	o := info.New()
	if err := yaml.UnmarshalStrict(text, o); err != nil {
		return nil, nil, &schema.Refusal{Faults: []schema.Fault{{File: "x.yaml", Line: 1, Problem: err.Error()}}}
	}
	if p, ok := o.(*corev1.Pod); ok && p.Spec.NodeName != "" {
		return nil, nil, &schema.Refusal{Faults: []schema.Fault{{Field: "spec.nodeName", Problem: "is not supported"}}}
	}
	dep, ok := o.(*appsv1.Deployment)
	if !ok {
		return o, nil, nil
	}
	if dep.Spec.Replicas == nil {
		dep.Spec.Replicas = new(int32(1))
	}
	if *dep.Spec.Replicas < 0 {
		return nil, nil, &schema.Refusal{Faults: []schema.Fault{{File: "x.yaml", Line: 1, Object: "Deployment default/web", Field: "spec.replicas", Problem: "-1 is less than 0", Remedy: "0 or more"}}}
	}
	return o, []schema.Fault{{Field: "spec.paused", Problem: "not acted on"}}, nil
}

func (d *door) put(o schema.Object) uint64 {
	k := schema.KeyOf(o)
	if o.GetUID() == "" {
		o.SetUID(schema.UIDOf(k))
	}
	if t := o.GetCreationTimestamp(); t.IsZero() {
		o.SetCreationTimestamp(metav1.NewTime(time.Now().Add(-time.Hour).UTC().Truncate(time.Second)))
	}
	d.cache.Put(k, o, 0)
	return d.cache.Version()
}

func meta(namespace, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels, Annotations: map[string]string{
		schema.AnnotationSource: "apps/" + name + ".yaml:1", schema.AnnotationRevision: "5f1dc0de", schema.AnnotationAuthor: "Ada <ada@example.org>",
	}}
}

func typed[T schema.Object](kind schema.Kind, o T) T {
	info, _ := schema.LookupKind(kind)
	o.GetObjectKind().SetGroupVersionKind(info.GVK)
	return o
}

func podFixture(namespace, name string, labels map[string]string) *corev1.Pod {
	return typed(schema.Pods, &corev1.Pod{
		ObjectMeta: meta(namespace, name, labels),
		Spec: corev1.PodSpec{
			NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: new(int64(30)),
			Containers: []corev1.Container{{Name: "main", Image: "registry.example.org/web:7", ImagePullPolicy: corev1.PullIfNotPresent,
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: quantity.MustParse("64Mi")}}}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.42.0.7", PodIPs: []corev1.PodIP{{IP: "10.42.0.7"}}, HostIP: "192.0.2.1", QOSClass: corev1.PodQOSBurstable,
			Conditions: []corev1.PodCondition{
				{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodInitialized, Status: corev1.ConditionTrue},
				{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue},
			},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "main", Ready: true, Image: "registry.example.org/web:7", ImageID: "sha256:7",
				Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(time.Now().Add(-time.Hour))}}}},
		},
	})
}

func configFixture(namespace, name, value string) *corev1.ConfigMap {
	return typed(schema.ConfigMaps, &corev1.ConfigMap{ObjectMeta: meta(namespace, name, map[string]string{"value": value}), Data: map[string]string{"n": value}})
}

func deploymentFixture(name string) *appsv1.Deployment {
	pod := podFixture("default", name, map[string]string{"app": name})
	return typed(schema.Deployments, &appsv1.Deployment{
		ObjectMeta: meta("default", name, map[string]string{"app": name}),
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: new(intstr.FromString("25%")), MaxUnavailable: new(intstr.FromString("25%")),
			}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: corev1.PodSpec{Containers: pod.Spec.Containers}},
		},
		Status: appsv1.DeploymentStatus{
			ObservedGeneration: 0, Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 2,
			Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Reason: "MinimumReplicasAvailable"}},
		},
	})
}

// secretFixture is sealed as openFixture opens it.
func secretFixture(name, word string) *corev1.Secret {
	m := meta("default", name, nil)
	m.Annotations[kv.AnnotationSealed] = "sum"
	return typed(schema.Secrets, &corev1.Secret{ObjectMeta: m, Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{"sealed.age": []byte(base64.StdEncoding.EncodeToString([]byte(word)))}})
}

// furnish fills the cache with a small cluster.
func (d *door) furnish() *door {
	for _, ns := range []string{"default", "kube-system"} {
		d.put(typed(schema.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}}))
	}
	d.put(typed(schema.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"kubernetes.io/hostname": "n1"}}, Status: corev1.NodeStatus{
		Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}},
		Capacity:    corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("2"), corev1.ResourceMemory: quantity.MustParse("8Gi"), corev1.ResourcePods: quantity.MustParse("110")},
		Allocatable: corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("2"), corev1.ResourceMemory: quantity.MustParse("8Gi"), corev1.ResourcePods: quantity.MustParse("110")},
	}}))
	dep := deploymentFixture("web")
	d.put(dep)
	rs := typed(schema.ReplicaSets, &appsv1.ReplicaSet{ObjectMeta: meta("default", "web-7", map[string]string{"app": "web"}), Spec: appsv1.ReplicaSetSpec{
		Replicas: new(int32(2)), Selector: dep.Spec.Selector, Template: dep.Spec.Template,
	}, Status: appsv1.ReplicaSetStatus{Replicas: 2, ReadyReplicas: 2, AvailableReplicas: 2}})
	rs.Annotations["deployment.kubernetes.io/revision"] = "1"
	rs.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(dep, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
	d.put(rs)
	for _, name := range []string{"web-7-a", "web-7-b"} {
		p := podFixture("default", name, map[string]string{"app": "web"})
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
		d.put(p)
	}
	d.put(podFixture("default", "talk", map[string]string{"app": "talk"}))
	d.put(podFixture("kube-system", "dns", nil))
	d.put(configFixture("default", "conf", "blue"))
	d.put(secretFixture("hush", "sesame"))
	d.put(typed(schema.Services, &corev1.Service{ObjectMeta: meta("default", "web", nil), Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.43.0.1", Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)}},
	}}))
	now := metav1.NewTime(time.Now().Add(-time.Minute))
	for n, reason := range []string{"Scheduled", "Pulled", "Started"} {
		d.put(typed(schema.Events, &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("talk.%d", n)}, Type: corev1.EventTypeNormal, Reason: reason,
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "talk", UID: schema.UIDOf(schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: "talk"}), APIVersion: "v1"},
			Message:        reason + " it", FirstTimestamp: now, LastTimestamp: now, Count: 1, Source: corev1.EventSource{Component: "nodeagent", Host: "n1"},
		}))
	}
	d.put(schema.NewRevisionObject(&schema.RevisionRecord{Commit: "5f1dc0de", Author: "Ada", Email: "ada@example.org", Subject: "web", When: time.Now(), Seen: time.Now(), Result: schema.RevisionApplied}))
	return d
}
