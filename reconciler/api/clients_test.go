package api

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientdiscovery "k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	clientcache "k8s.io/client-go/tools/cache"

	"github.com/pawl-project/pawl/schema"
)

// config is how client-go reaches the door.
func (d *door) config(token string, m media) *rest.Config {
	return &rest.Config{Host: d.http.URL, BearerToken: token, QPS: -1, ContentConfig: rest.ContentConfig{
		ContentType: string(m), AcceptContentTypes: string(m) + "," + string(jsonMedia),
	}}
}

func (d *door) client(token string, m media) kubernetes.Interface {
	c, err := kubernetes.NewForConfig(d.config(token, m))
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// eventually waits for what another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen: " + what)
		}
	}
}

func TestTypedClientReadsAndDeletes(t *testing.T) {
	for _, m := range []media{jsonMedia, protoMedia} {
		t.Run(string(m), func(t *testing.T) {
			d := newDoor(t).furnish()
			ctx, c := t.Context(), d.client("admin", m)
			pods, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
			if err != nil || len(pods.Items) != 4 || pods.Items[0].Name != "talk" || pods.Items[0].Status.PodIP != "10.42.0.7" {
				t.Fatalf("%v, %+v", err, pods)
			}
			dep, err := c.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
			if err != nil || *dep.Spec.Replicas != 2 || dep.ResourceVersion == "" {
				t.Fatalf("%v, %+v", err, dep)
			}
			scale, err := c.AppsV1().Deployments("default").GetScale(ctx, "web", metav1.GetOptions{})
			if err != nil || scale.Spec.Replicas != 2 || scale.Status.Selector != "app=web" {
				t.Fatalf("%v, %+v", err, scale)
			}
			secret, err := c.CoreV1().Secrets("default").Get(ctx, "hush", metav1.GetOptions{})
			if err != nil || string(secret.Data["word"]) != "sesame" || secret.Annotations["pawl.dev/sealed"] != "" {
				t.Fatalf("%v, %+v", err, secret)
			}
			secrets, err := c.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
			if err != nil || string(secrets.Items[0].Data["word"]) != "sesame" {
				t.Fatalf("%v, %+v", err, secrets)
			}
			if _, err := c.CoreV1().Pods("default").Get(ctx, "nosuch", metav1.GetOptions{}); !apierrors.IsNotFound(err) || err.Error() != `pods "nosuch" not found` {
				t.Error(err)
			}
			if _, err := d.client("view", m).CoreV1().Secrets("default").Get(ctx, "hush", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
				t.Error(err)
			}
			wrong := types.UID("another")
			err = c.CoreV1().Pods("default").Delete(ctx, "talk", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrong}})
			if !apierrors.IsConflict(err) || len(d.restart) != 0 {
				t.Error(err)
			}
			if err := c.CoreV1().Pods("default").Delete(ctx, "talk", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil || len(d.restart) != 0 {
				t.Error(err)
			}
			if err := c.CoreV1().Pods("default").Delete(ctx, "talk", metav1.DeleteOptions{}); err != nil || len(d.restart) != 1 {
				t.Error(err, d.restart)
			}
			if err := c.CoreV1().Pods("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=web"}); err != nil || len(d.restart) != 3 {
				t.Error(err, d.restart)
			}
			if err := c.AppsV1().Deployments("default").Delete(ctx, "web", metav1.DeleteOptions{}); !apierrors.IsMethodNotSupported(err) {
				t.Error(err)
			}
		})
	}
}

// A mirror is what an informer was told.
type mirror struct {
	mu     sync.Mutex
	values map[string]string
}

func (m *mirror) OnAdd(o any, _ bool) { m.set(o) }
func (m *mirror) OnUpdate(was, o any) { m.set(o) }
func (m *mirror) OnDelete(o any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lost, ok := o.(clientcache.DeletedFinalStateUnknown); ok {
		o = lost.Obj
	}
	delete(m.values, o.(metav1.Object).GetName())
}

func (m *mirror) set(o any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[o.(metav1.Object).GetName()] = o.(metav1.Object).GetLabels()["value"]
}

func (m *mirror) is(want map[string]string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprint(m.values) == fmt.Sprint(want)
}

// TestInformersMirror lets informers of each sort follow a cache that changes,
// while their connections are cut again and again.
func TestInformersMirror(t *testing.T) {
	d := newDoor(t).furnish()
	ctx, cancel := context.WithCancel(t.Context())
	mirrors := map[string]*mirror{}
	var running sync.WaitGroup
	follow := func(name string, i clientcache.SharedIndexInformer) {
		m := &mirror{values: map[string]string{}}
		mirrors[name] = m
		if _, err := i.AddEventHandler(m); err != nil {
			t.Fatal(err)
		}
		running.Go(func() { i.Run(ctx.Done()) })
	}
	for _, m := range []media{jsonMedia, protoMedia} {
		f := informers.NewSharedInformerFactory(d.client("admin", m), 0)
		follow(string(m), f.Core().V1().ConfigMaps().Informer())
		meta, err := metadata.NewForConfig(d.config("admin", m))
		if err != nil {
			t.Fatal(err)
		}
		follow("metadata "+string(m), metadatainformer.NewSharedInformerFactory(meta, 0).ForResource(corev1.SchemeGroupVersion.WithResource("configmaps")).Informer())
	}
	defer running.Wait()
	defer cancel()

	want := map[string]string{"conf": "blue"}
	for n := range 200 {
		name := fmt.Sprintf("c%d", n%17)
		if n%5 == 4 {
			d.cache.Delete(schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "default", Name: name}, 0)
			delete(want, name)
		} else {
			d.put(configFixture("default", name, fmt.Sprint(n)))
			want[name] = fmt.Sprint(n)
		}
		if n%40 == 39 {
			d.http.CloseClientConnections()
		}
	}
	for name, m := range mirrors {
		eventually(t, name+" holds what the cache holds", func() bool { return m.is(want) })
	}
}

func TestDynamicDiscoveryAndMapping(t *testing.T) {
	d := newDoor(t).furnish()
	c, err := clientdiscovery.NewDiscoveryClientForConfig(d.config("view", jsonMedia))
	if err != nil {
		t.Fatal(err)
	}
	groups, resources, failed, err := c.GroupsAndMaybeResources() // aggregated
	if err != nil || len(failed) > 0 || len(groups.Groups) != 6 || resources == nil {
		t.Fatalf("%v %v %+v %+v", err, failed, groups, resources)
	}
	plain, err := c.WithLegacy().ServerResourcesForGroupVersion("apps/v1")
	if err != nil || len(plain.APIResources) == 0 {
		t.Fatal(err, plain)
	}
	var names []string
	for _, r := range resources[k8sschema.GroupVersion{Group: "apps", Version: "v1"}].APIResources {
		names = append(names, r.Name)
	}
	for n, r := range plain.APIResources {
		if r.Name != names[n] {
			t.Errorf("plain discovery names %s where aggregated names %s", r.Name, names[n])
		}
	}
	list, err := restmapper.GetAPIGroupResources(c)
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := restmapper.NewDiscoveryRESTMapper(list).RESTMapping(k8sschema.GroupKind{Group: "pawl.dev", Kind: "Revision"})
	if err != nil || mapping.Resource.Resource != "revisions" {
		t.Fatal(err, mapping)
	}
	x, err := dynamic.NewForConfig(d.config("view", jsonMedia))
	if err != nil {
		t.Fatal(err)
	}
	revisions, err := x.Resource(mapping.Resource).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(revisions.Items) != 1 || revisions.Items[0].GetKind() != "Revision" {
		t.Fatal(err, revisions)
	}
	version, err := c.ServerVersion()
	if err != nil || version.GitVersion != "v1.36.3+pawl-0.3.0" {
		t.Error(err, version)
	}
	paths, err := c.OpenAPIV3().Paths()
	if err != nil || paths["apis/pawl.dev/v1"] == nil || paths["api/v1"] == nil {
		t.Error(err, paths)
	}
	for name, p := range paths {
		if text, err := p.Schema(string(jsonMedia)); err != nil || len(text) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
