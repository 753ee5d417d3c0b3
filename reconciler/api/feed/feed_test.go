package feed

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func object[T schema.Object](kind schema.Kind, namespace, name string, change func(T)) T {
	info, _ := schema.LookupKind(kind)
	o := info.New().(T)
	o.SetNamespace(namespace)
	o.SetName(name)
	o.SetCreationTimestamp(metav1.NewTime(at(0)))
	if change != nil {
		change(o)
	}
	return o
}

func webPod(name string, uid types.UID) corev1.Pod {
	p := object(schema.Pods, "shop", name, func(p *corev1.Pod) {
		p.UID = uid
		p.Annotations = map[string]string{schema.AnnotationRevision: "abc", schema.AnnotationSource: "web.yaml:1", schema.AnnotationAuthor: "A <a@example.org>"}
	})
	return *p
}

func key(kind schema.Kind, namespace, name string) schema.ObjectKey {
	return schema.ObjectKey{Kind: kind, Namespace: namespace, Name: name}
}

func anything(schema.Object) bool { return true }

func phase(want corev1.PodPhase) func(schema.Object) bool {
	return func(o schema.Object) bool { return o.(*corev1.Pod).Status.Phase == want }
}

func TestFeedShowsWhatTheStoreHolds(t *testing.T) {
	s := newServer(t)
	c := newControl(t, s.store, time.Minute)
	if _, ok := c.cache.Get(key(schema.Namespaces, "", "default")); !ok {
		t.Error("there is no default namespace")
	}
	w, err := c.cache.Watch(schema.Pods, "shop", c.cache.Version())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()

	web := key(schema.Deployments, "shop", "web")
	c.desire(object(schema.Deployments, "shop", "web", func(d *appsv1.Deployment) { d.Spec.Paused = true }))
	c.shows("the manifest", web, func(o schema.Object) bool { return o.(*appsv1.Deployment).Spec.Paused })
	c.shows("its namespace", key(schema.Namespaces, "", "shop"), func(o schema.Object) bool { return o.GetCreationTimestamp().Time.Equal(at(0)) })
	c.put(kv.Actuals, kv.ObjectKey(web), object(schema.Deployments, "shop", "web", func(d *appsv1.Deployment) { d.Status.Replicas = 2 }))
	c.shows("its status", web, func(o schema.Object) bool {
		d := o.(*appsv1.Deployment)
		return d.Status.Replicas == 2 && d.Spec.Paused
	})

	p := webPod("web-1", "u1")
	k := key(schema.Pods, "shop", "web-1")
	c.assign("n1", p)
	item := c.shows("the pod waits for its node", k, phase(corev1.PodPending))
	e, _ := c.assignments.Get("n1.shop.web-1")
	if item.Version != uint64(e.Stored.UnixNano()) || item.Object().GetAnnotations()[schema.AnnotationSource] != "web.yaml:1" {
		t.Errorf("version %d, stored at %d, annotations %v", item.Version, e.Stored.UnixNano(), item.Object().GetAnnotations())
	}
	c.report("n1", p, corev1.PodRunning, false)
	c.shows("it runs", k, phase(corev1.PodRunning))
	now := metav1.NewTime(at(9))
	p.DeletionTimestamp = &now
	c.assign("n1", p)
	c.shows("it ends", k, func(o schema.Object) bool { return o.GetDeletionTimestamp() != nil })
	c.report("n1", p, corev1.PodSucceeded, true)
	c.shows("it is gone", k, nil)
	c.remove(kv.Assignments, "n1.shop.web-1")
	c.remove(kv.Actuals, kv.ObjectKey(k))
	c.assign("n1", webPod("web-1", "u2"))
	c.shows("one of its name", k, phase(corev1.PodPending))
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Modified, watch.Deleted, watch.Added} {
		if e, err := w.Next(t.Context()); err != nil || e.Type != want {
			t.Fatalf("event %v %v, want %v", e.Type, err, want)
		}
	}

	c.put(kv.Actuals, "nodes._.n1", object[*corev1.Node](schema.Nodes, "", "n1", nil))
	c.shows("the node", key(schema.Nodes, "", "n1"), anything)
	c.put(kv.Actuals, "revisions._.abc", schema.RevisionRecord{Commit: "abc", Subject: "web: 8"})
	c.shows("the revision", key(schema.Revisions, "", "abc"), func(o schema.Object) bool { return o.(*schema.RevisionObject).Spec.Subject == "web: 8" })
	if err := c.store.Publish(t.Context(), []corev1.Event{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web.1"}, Reason: "Started"}}); err != nil {
		t.Fatal(err)
	}
	c.shows("the event", key(schema.Events, "shop", "web.1"), anything)
	secret := object(schema.Secrets, "shop", "key", func(s *corev1.Secret) {
		s.Data = map[string][]byte{"key": []byte("sealed")}
		s.Annotations = map[string]string{kv.AnnotationSealed: "x"}
	})
	c.desire(secret)
	c.shows("a secret stays sealed", key(schema.Secrets, "shop", "key"), func(o schema.Object) bool {
		return string(o.(*corev1.Secret).Data["key"]) == "sealed" && o.GetAnnotations()[kv.AnnotationSealed] == "x"
	})

	for _, k := range []schema.ObjectKey{web, key(schema.Secrets, "shop", "key")} {
		c.remove(kv.Desired, kv.ObjectKey(k))
		c.shows("it left the repository", k, nil)
	}
	if _, ok := c.cache.Get(key(schema.Namespaces, "", "shop")); !ok {
		t.Error("the namespace is gone though a pod stands in it")
	}
	c.remove(kv.Assignments, "n1.shop.web-1")
	c.shows("the empty namespace is gone", key(schema.Namespaces, "", "shop"), nil)
}

// A bare pod that is replaced holds its namespace, though there is none for a while.
func TestANamespaceOfBarePodsStays(t *testing.T) {
	c := newControl(t, newServer(t).store, time.Minute)
	p := webPod("one", "u1")
	c.desire(&p)
	c.shows("the namespace", key(schema.Namespaces, "", "shop"), anything)
	c.assign("n1", p)
	c.shows("the pod", key(schema.Pods, "shop", "one"), anything)
	w, err := c.cache.Watch(schema.Namespaces, "", c.cache.Version())
	if err != nil {
		t.Fatal(err)
	}
	c.remove(kv.Assignments, "n1.shop.one")
	c.shows("the pod is gone", key(schema.Pods, "shop", "one"), nil)
	c.assign("n1", p)
	c.shows("the pod is back", key(schema.Pods, "shop", "one"), anything)
	c.remove(kv.Assignments, "n1.shop.one")
	c.remove(kv.Desired, "pods.shop.one")
	if e, err := w.Next(t.Context()); err != nil || e.Type != watch.Deleted {
		t.Errorf("the first thing to happen to a namespace: %v, %v", e.Type, err)
	}
}

// chaos writes what a cluster's reconciler and nodes would, at random.
type chaos struct {
	*control
	random *rand.Rand
	uid    int
}

func (c *chaos) step() {
	name := fmt.Sprint("web-", c.random.IntN(6))
	deployment := key(schema.Deployments, "shop", name)
	switch c.random.IntN(10) {
	case 0:
		c.desire(object(schema.Deployments, "shop", name, func(d *appsv1.Deployment) { d.Generation = c.random.Int64N(5) }))
	case 1:
		c.put(kv.Actuals, kv.ObjectKey(deployment), object(schema.Deployments, "shop", name, func(d *appsv1.Deployment) { d.Status.Replicas = c.random.Int32N(5) }))
	case 2:
		c.remove(kv.Desired, kv.ObjectKey(deployment))
		c.remove(kv.Actuals, kv.ObjectKey(deployment))
	default:
		c.podStep(name)
	}
}

// podStep brings a pod one step further in its life, which ends and begins anew.
func (c *chaos) podStep(name string) {
	node := schema.NodeName("n" + name[len(name)-1:])
	a, assigned := c.assignments.Get(kv.AssignmentKey(node, schema.PodKey{Namespace: "shop", Name: name}))
	e, reported := c.actual.Get(kv.ObjectKey(key(schema.Pods, "shop", name)))
	p := a.Value.Pod
	switch {
	case !assigned:
		c.uid++
		c.assign(node, webPod(name, types.UID(fmt.Sprint("u", c.uid))))
	case reported && e.Value.Report.Gone && e.Value.Report.Pod.UID == p.UID:
		c.remove(kv.Assignments, a.Key)
		c.remove(kv.Actuals, e.Key)
	case c.random.IntN(3) > 0:
		c.report(node, p, []corev1.PodPhase{"Running", "Failed", "Pending"}[c.random.IntN(3)], false)
	case p.DeletionTimestamp == nil:
		now := metav1.NewTime(at(9))
		p.DeletionTimestamp = &now
		c.assign(node, p)
	default:
		c.report(node, p, corev1.PodSucceeded, true)
	}
}

// quiet waits until the cache shows all that the views do, and each time is known.
func (c *control) quiet() {
	c.t.Helper()
	eventually(c.t, "all is delivered", func() bool {
		for e := range c.desired.All() {
			if e.Stored.IsZero() {
				return false
			}
		}
		for e := range c.assignments.All() {
			if e.Stored.IsZero() {
				return false
			}
		}
		for e := range c.actual.All() {
			if e.Stored.IsZero() {
				return false
			}
		}
		return c.whole()
	})
	end := key(schema.ConfigMaps, "default", fmt.Sprint("m", rand.Int64()))
	c.desire(object[*corev1.ConfigMap](end.Kind, end.Namespace, end.Name, nil))
	c.shows("a last write", end, anything)
	c.remove(kv.Desired, kv.ObjectKey(end))
	c.shows("its removal", end, nil)
}

// client is an informer in small: it lists, watches, and refuses what does not follow.
type client struct {
	t     testing.TB
	knows map[string]uint64
	w     *cache.Watcher
}

func newClient(t testing.TB, c *cache.Cache, kind schema.Kind) *client {
	items, version := c.List(kind, "")
	x := &client{t: t, knows: map[string]uint64{}}
	for _, i := range items {
		x.knows[i.Key.String()] = i.Version
	}
	x.w = must[*cache.Watcher](t)(c.Watch(kind, "", version))
	return x
}

// catchUp takes every event up to the newest, and returns how many there were of
// each type and object.
func (x *client) catchUp(c *cache.Cache) map[string]int {
	x.t.Helper()
	counts := map[string]int{}
	for x.w.Version() < c.Version() {
		e := must[cache.Event](x.t)(x.w.Next(context.Background()))
		k := e.Item.Key.String()
		if _, known := x.knows[k]; known == (e.Type == watch.Added) {
			x.t.Errorf("%s %s, known %v", k, e.Type, known)
		}
		if x.knows[k] = e.Version; e.Type == watch.Deleted {
			delete(x.knows, k)
		}
		counts[string(e.Type)+" "+e.Item.Key.Name]++
	}
	return counts
}

// Whatever is written: a daemon that starts afterwards shows the same objects
// with the same versions, and who watched knows the same as who lists. No object
// of a view was changed by showing it.
func TestARestartGivesTheSameVersions(t *testing.T) {
	s := newServer(t)
	c := &chaos{control: newControl(t, s.store, time.Minute, patient), random: rand.New(rand.NewPCG(1, 2))}
	pods := newClient(t, c.cache, schema.Pods)
	for range 400 {
		c.step()
	}
	c.quiet()
	pods.catchUp(c.cache)
	for e := range c.assignments.All() {
		if again := must[schema.Assignment](t)(kv.DecodeAssignment(e.Key, must[[]byte](t)(jsonOf(e.Value)))); !reflect.DeepEqual(again, e.Value) {
			t.Errorf("%s of the view was changed", e.Key)
		}
		if e.Value.Pod.ResourceVersion != "" {
			t.Errorf("%s of the view has a resourceVersion", e.Key)
		}
	}
	was, client := c.contents(), map[string]uint64{}
	items, _ := c.cache.List(schema.Pods, "")
	for _, i := range items {
		client[i.Key.String()] = i.Version
	}
	if !maps.Equal(client, pods.knows) {
		t.Errorf("the watcher knows %v, it is %v", pods.knows, client)
	}
	c.stop()
	again := newControl(t, s.open(), time.Minute)
	is := again.contents()
	compare(t, was, is, key(schema.Namespaces, "", "shop").String())
	if len(is) < 5 {
		t.Errorf("only %d objects", len(is))
	}
}

// compare compares two contents, of the keys in but only the JSON's presence: a
// namespace of no manifest has no key in the store that could say when it came.
func compare(t *testing.T, was, is map[string]string, but ...string) {
	t.Helper()
	for _, k := range but {
		if (was[k] == "") != (is[k] == "") {
			t.Errorf("%s: was %q, is %q", k, was[k], is[k])
		}
		delete(was, k)
		delete(is, k)
	}
	for k := range was {
		if was[k] != is[k] {
			t.Errorf("%s\nwas %s\nis  %s", k, was[k], is[k])
		}
	}
	for k := range is {
		if was[k] == "" {
			t.Errorf("%s is new", k)
		}
	}
}

// A server that goes and comes back is no event.
func TestALossOfTheWatchIsNoEvent(t *testing.T) {
	s := newServer(t)
	c := &chaos{control: newControl(t, s.store, time.Minute), random: rand.New(rand.NewPCG(3, 4))}
	for range 100 {
		c.step()
	}
	c.quiet()
	was, version := c.contents(), c.cache.Version()
	for range 2 {
		s.restart(func() {
			eventually(t, "the views know", func() bool { return !c.whole() })
			compare(t, was, c.contents())
		})
		eventually(t, "the views are whole again", c.whole)
	}
	compare(t, was, c.contents())
	if c.cache.Version() != version {
		t.Errorf("version %d, was %d", c.cache.Version(), version)
	}
	for range 100 {
		c.step()
	}
	c.quiet()
}

// A store that is wiped has lost its keys, and nobody deleted them. What is
// written again was never away for who watches; the rest goes when its time is up.
func TestAWipedStore(t *testing.T) {
	s := newServer(t)
	c := newControl(t, s.store, 10*time.Second) // in which five of them come back
	var all []corev1.Pod
	for i := range 10 {
		p := webPod(fmt.Sprint("web-", i), types.UID(fmt.Sprint("u", i)))
		c.assign("n1", p)
		c.report("n1", p, corev1.PodRunning, false)
		all = append(all, p)
	}
	c.desire(object[*corev1.Service](schema.Services, "shop", "web", nil))
	c.quiet()
	pods := newClient(t, c.cache, schema.Pods)
	s.restart(func() {
		if err := os.RemoveAll(filepath.Join(s.dir, "nats")); err != nil {
			t.Fatal(err)
		}
	})
	eventually(t, "the views are whole, and empty", func() bool {
		return c.whole() && c.assignments.Len() == 0 && c.actual.Len() == 0 && c.desired.Len() == 0
	})
	if items, _ := c.cache.List(schema.Pods, ""); len(items) != 10 {
		t.Errorf("%d pods are left", len(items))
	}
	for _, p := range all[:5] { // their node speaks of them, and they are assigned again
		c.report("n1", p, corev1.PodRunning, false)
		c.assign("n1", p)
	}
	eventually(t, "what did not come back is gone", func() bool {
		items, _ := c.cache.List(schema.Pods, "")
		_, service := c.cache.Get(key(schema.Services, "shop", "web"))
		return len(items) == 5 && !service
	})
	if _, ok := c.cache.Get(key(schema.Namespaces, "", "shop")); !ok {
		t.Error("the namespace is gone")
	}
	counts := pods.catchUp(c.cache)
	for i := range 10 {
		name := fmt.Sprint("web-", i)
		deleted := 0
		if i >= 5 {
			deleted = 1
		}
		if counts["DELETED "+name] != deleted || counts["ADDED "+name] != 0 {
			t.Errorf("%s: events %v", name, counts)
		}
	}
}

// A daemon starts while much is written, its own writes among it: whenever a
// feed begins, what it shows in the end is what the first one shows.
func TestAFeedBeginsInTheMiddle(t *testing.T) {
	s := newServer(t)
	c := &chaos{control: newControl(t, s.store, time.Minute), random: rand.New(rand.NewPCG(5, 6))}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var others []*Feed
	for i := range 200 {
		c.step()
		if i%20 == 7 {
			f := New(Options{Cache: cache.New(cache.Options{}), Desired: c.desired, Assignments: c.assignments, Actual: c.actual, Events: c.events, Logger: quiet()})
			others = append(others, f)
			running.Go(func() { _ = f.Run(ctx) })
		}
	}
	c.quiet()
	want := c.withoutVersions()
	for n, f := range others {
		other := *c.control
		other.cache = f.Cache
		eventually(t, fmt.Sprintf("feed %d shows the same", n), func() bool {
			return f.Ready() && maps.Equal(other.withoutVersions(), want)
		})
	}
	cancel()
	running.Wait()
}

// withoutVersions is contents, but for the versions.
func (c *control) withoutVersions() map[string]string {
	all := c.contents()
	for k, text := range all {
		all[k] = resourceVersion.ReplaceAllString(strings.SplitN(text, " ", 2)[1], "")
	}
	return all
}

var resourceVersion = regexp.MustCompile(`"resourceVersion":"[0-9]+"`)
