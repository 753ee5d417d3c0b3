package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/api"
	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/reconciler/api/stream"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A frontDoor is Pawl's own API over a cache, with a node that echoes.
type frontDoor struct {
	*desk
	cache *cache.Cache
	url   string
}

func newFrontDoor(t *testing.T) *frontDoor {
	t.Helper()
	f := &frontDoor{cache: cache.New(cache.Options{})}
	server := api.New(api.Options{
		Cache: f.cache, Repository: "http://git/cluster.git", Branch: "main", Version: "0.3.0", RestartPod: f.restart,
		Streams: stream.New(stream.Options{Nodes: echoes{}, Pod: f.pod}),
	})
	t.Cleanup(server.Close)
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		server.ServeHTTP(w, r.WithContext(access.WithUser(r.Context(), access.User{Name: "ada", Role: access.Admin})))
	}))
	t.Cleanup(open.Close)
	f.desk, f.url = newDesk(t, open.URL), open.URL
	return f
}

func (f *frontDoor) put(o schema.Object, version uint64) {
	info, ok := schema.LookupGVK(o.GetObjectKind().GroupVersionKind())
	if !ok {
		f.t.Fatalf("%T has no type", o)
	}
	f.cache.Put(schema.ObjectKey{Kind: info.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}, o, version)
}

func (f *frontDoor) pod(k schema.PodKey) (*corev1.Pod, bool) {
	item, ok := f.cache.Get(schema.ObjectKey{Kind: schema.Pods, Namespace: k.Namespace, Name: k.Name})
	if !ok {
		return nil, false
	}
	return item.Object().(*corev1.Pod), true
}

func (f *frontDoor) restart(_ context.Context, k schema.PodKey, _ types.UID, _ *int64) (*corev1.Pod, error) {
	p, ok := f.pod(k)
	if !ok {
		return nil, schema.ErrNotFound
	}
	p = p.DeepCopy()
	p.DeletionTimestamp = ptr.To(metav1.Now())
	f.cache.Delete(schema.ObjectKey{Kind: schema.Pods, Namespace: k.Namespace, Name: k.Name}, 0)
	return p, nil
}

// echoes is a cluster whose nodes give back what they are sent, and end each
// command with exit code 42 when its input ends.
type echoes struct{}

// Open implements stream.Dialer.
func (echoes) Open(context.Context, schema.NodeName, kv.StreamRequest) (stream.Conn, error) {
	return &echo{up: make(chan []byte, 64), done: make(chan struct{})}, nil
}

type echo struct {
	up    chan []byte
	ended sync.Once
	done  chan struct{} // no more input comes
	told  bool          // the exit code
}

// Send implements stream.Conn.
func (e *echo) Send(_ context.Context, channel byte, data []byte) error {
	if channel == kv.ChannelStdin {
		e.up <- bytes.Clone(data)
	}
	return nil
}

// Recv implements stream.Conn.
func (e *echo) Recv(ctx context.Context) (byte, []byte, error) {
	select {
	case data := <-e.up:
		return kv.ChannelStdout, data, nil
	default:
	}
	select {
	case data := <-e.up:
		return kv.ChannelStdout, data, nil
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	case <-e.done:
	}
	select {
	case data := <-e.up:
		return kv.ChannelStdout, data, nil
	default:
	}
	if e.told {
		return 0, nil, io.EOF
	}
	e.told = true
	text, err := json.Marshal(kv.StreamResult{ExitCode: 42})
	return kv.ChannelResult, text, err
}

// CloseSend implements stream.Conn.
func (e *echo) CloseSend() error {
	e.ended.Do(func() { close(e.done) })
	return nil
}

// Close implements stream.Conn.
func (e *echo) Close(error) { _ = e.CloseSend() }

// Context implements stream.Conn.
func (*echo) Context() context.Context { return context.Background() }

func TestOverTheRealAPI(t *testing.T) {
	f := newFrontDoor(t)
	marks := map[string]string{schema.AnnotationRevision: records[0].Commit, schema.AnnotationSource: "web.yaml:1", schema.AnnotationAuthor: "Ada <ada@example.org>"}
	created := metav1.NewTime(time.Now().Add(-time.Hour))
	f.put(&appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "d", Annotations: marks, CreationTimestamp: created},
		Spec:       appsv1.DeploymentSpec{Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		Status:     appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1},
	}, 1)
	f.put(&appsv1.ReplicaSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
		ObjectMeta: metav1.ObjectMeta{Name: "web-a", Namespace: "default", UID: "rs", OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "d", Controller: ptr.To(true)}}},
		Spec:       appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		Status:     appsv1.ReplicaSetStatus{Replicas: 1},
	}, 2)
	f.put(&corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "web-a-1", Namespace: "default", UID: "p", Labels: map[string]string{"app": "web"}, CreationTimestamp: created, OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-a", UID: "rs", Controller: ptr.To(true)}}},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main", Image: "web:7"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &created, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", Image: "web:7", RestartCount: 2,
			State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 5m0s restarting failed container=main pod=web-a-1_default(p)"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 7, FinishedAt: created}},
		}}},
	}, 3)
	for i := range records {
		f.put(schema.NewRevisionObject(&records[i]), uint64(4+i))
	}

	out, errs, code := f.pawl("why", "deploy/web")
	want := `Deployment web: 0 of 1 available
  ReplicaSet web-a: 0 of 1 ready
    Pod web-a-1: container main: CrashLoopBackOff since 60m, next try now: it ended with exit code 7; restarted 2 times so far
      remedy: see what it said: pawl logs web-a-1 -c main --previous
from web.yaml:1, commit 3fa81c2d9e by Ada <ada@example.org>
`
	if out != want || errs != "" || code != 0 {
		t.Errorf("why says\n%s%s(%d) want\n%s", out, errs, code, want)
	}
	for line, want := range map[string]string{
		"get pods":               "web-a-1   0/1     CrashLoopBackOff   2 (60m ago)   60m\n",
		"get deploy,rs -o name":  "deployment.apps/web\nreplicaset.apps/web-a\n",
		"get rev -o name":        "revision.pawl.dev/3b",
		"describe pod web-a-1":   "CrashLoopBackOff",
		"history":                "3fa81c2d9e   Ada       60m   Applied   +2 ~1 -0   94ms      Serve\n",
		"version":                "Client Version: dev\nServer Version: ",
		"explain pod.spec":       "FIELDS:",
		"api-resources":          "deployments",
		"auth whoami":            "ada",
		"auth can-i delete pods": "yes\n",
	} {
		if out, errs, code := f.pawl(strings.Fields(line)...); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, no %q in\n%s%s", line, code, want, out, errs)
		}
	}
	if out, errs, code := f.pawl("delete", "deploy", "web"); code != 1 || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "http://git/cluster.git") {
		t.Errorf("delete deploy: exit code %d\n%s%s", code, out, errs)
	}
	if out, errs, code := f.pawl("delete", "pod", "web-a-1", "--timeout=10s"); code != 0 || out != "pod \"web-a-1\" deleted from default namespace\n" {
		t.Errorf("delete pod: exit code %d\n%s%s", code, out, errs)
	}
}

// TestExec sends input through the API to a node and back, over WebSocket; the
// exit code is the command's.
func TestExec(t *testing.T) {
	f := newFrontDoor(t)
	f.put(&corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "p"},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}},
	}, 1)
	var out, errs bytes.Buffer
	streams := genericiooptions.IOStreams{In: strings.NewReader("hello\n"), Out: &out, ErrOut: &errs}
	code := run([]string{"exec", "-i", "p", "--", "cat"}, streams, func(name string) string { return f.env[name] })
	if out.String() != "hello\n" || errs.String() != "command terminated with exit code 42\n" || code != 42 {
		t.Errorf("exec prints %q, says %q, exit code %d", out.String(), errs.String(), code)
	}
}
