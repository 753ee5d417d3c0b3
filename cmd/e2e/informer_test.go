package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// A witness writes down what an informer tells.
type witness struct {
	mu     sync.Mutex
	faults []string
	values map[string][]string // of each ConfigMap, the values in the order told; "-" for deleted
}

func (w *witness) fault(format string, args ...any) {
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

func (w *witness) told(o any, value string) {
	if m, ok := o.(*corev1.ConfigMap); ok {
		w.values[m.Name] = append(w.values[m.Name], value)
	}
}

func (w *witness) OnAdd(o any, _ bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m, ok := o.(*corev1.ConfigMap); ok {
		w.told(o, m.Data["value"])
	}
}

func (w *witness) OnUpdate(before, after any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, b := before.(metav1.Object), after.(metav1.Object)
	if a.GetUID() != b.GetUID() {
		w.fault("%T %s/%s became another object without a deletion", after, b.GetNamespace(), b.GetName())
	}
	was, err1 := strconv.ParseUint(a.GetResourceVersion(), 10, 64)
	is, err2 := strconv.ParseUint(b.GetResourceVersion(), 10, 64)
	if err1 != nil || err2 != nil {
		w.fault("%T %s: resourceVersion %q, then %q", after, b.GetName(), a.GetResourceVersion(), b.GetResourceVersion())
	}
	switch {
	case was == is:
		return // a list after a reconnect told again what was known
	case is < was:
		w.fault("%T %s went back from version %d to %d", after, b.GetName(), was, is)
	}
	if sameButVersion(before, after) {
		w.fault("%T %s: version %d, then %d, with nothing changed", after, b.GetName(), was, is)
	}
	if m, ok := after.(*corev1.ConfigMap); ok {
		w.told(after, m.Data["value"])
	}
}

func (w *witness) OnDelete(o any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if lost, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = lost.Obj
	}
	w.told(o, "-")
	if p, ok := o.(*corev1.Pod); ok {
		w.fault("pod %s was deleted", p.Name)
	}
}

func sameButVersion(a, b any) bool {
	switch a := a.(type) {
	case *corev1.ConfigMap:
		c := b.(*corev1.ConfigMap).DeepCopy()
		c.ResourceVersion = a.ResourceVersion
		return equality.Semantic.DeepEqual(a, c)
	case *corev1.Pod:
		c := b.(*corev1.Pod).DeepCopy()
		c.ResourceVersion = a.ResourceVersion
		return equality.Semantic.DeepEqual(a, c)
	}
	return false
}

func (w *witness) last(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.values[name]
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

func number(name string, n int) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  value: \"%d\"\n", name, n)
}

// inform is a shared informer's inside, a reflector that fills a queue and a store
// that is compared with what comes out of it, but for the pauses of the reflector:
// an informer's grow to a minute, and 20 kills would take a quarter of an hour.
func inform(ctx context.Context, t *testing.T, client cache.Getter, resource string, kind runtime.Object, w *witness) {
	known := cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc)
	queue := cache.NewRealFIFOWithOptions(cache.RealFIFOOptions{KeyFunction: cache.MetaNamespaceKeyFunc, KnownObjects: known})
	reflector := cache.NewReflectorWithOptions(cache.NewListWatchFromClient(client, resource, metav1.NamespaceAll, fields.Everything()), kind, queue,
		cache.ReflectorOptions{Backoff: &wait.Backoff{Duration: 50 * time.Millisecond, Cap: time.Second, Factor: 2, Jitter: 1, Steps: 10}})
	var reflecting sync.WaitGroup
	defer reflecting.Wait()
	reflecting.Go(func() { reflector.RunWithContext(ctx) })
	context.AfterFunc(ctx, queue.Close)
	for ctx.Err() == nil {
		_, err := queue.Pop(func(o any, initial bool) error {
			deltas, ok := o.(cache.Deltas)
			if !ok {
				return fmt.Errorf("not deltas: %T", o)
			}
			return w.apply(known, deltas, initial)
		})
		if err != nil && ctx.Err() == nil {
			t.Errorf("%s: %v", resource, err)
			return
		}
	}
}

// apply tells the witness of each delta as an informer tells its handlers.
func (w *witness) apply(known cache.Store, deltas cache.Deltas, initial bool) error {
	for _, d := range deltas {
		if d.Type == cache.Deleted {
			if err := known.Delete(d.Object); err != nil {
				return err
			}
			w.OnDelete(d.Object)
			continue
		}
		old, exists, err := known.Get(d.Object)
		if err != nil {
			return err
		}
		if err := known.Update(d.Object); err != nil {
			return err
		}
		if exists {
			w.OnUpdate(old, d.Object)
		} else {
			w.OnAdd(d.Object, initial)
		}
	}
	return nil
}

// TestInformerOverKills leaves client-go's informers running, which speak
// protobuf, while the server is killed 20 times with pushes before, between and
// at once after. What they tell is what was pushed: in order, once, and nothing
// about what did not change.
func TestInformerOverKills(t *testing.T) {
	klog.SetOutput(io.Discard) // it tells of every lost connection
	klog.LogToStderr(false)
	log.SetOutput(io.Discard)
	c := newCluster(t)
	c.push(map[string]string{"steady.yaml": sleepers("steady", 2), "s.yaml": number("steady", 1), "n.yaml": number("counter", 0)})
	c.running("steady-", 2, 60*time.Second)

	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &witness{values: map[string][]string{}}
	var informing sync.WaitGroup
	defer informing.Wait()
	defer cancel()
	core := client.CoreV1().RESTClient()
	informing.Go(func() { inform(ctx, t, core, "configmaps", &corev1.ConfigMap{}, w) })
	informing.Go(func() { inform(ctx, t, core, "pods", &corev1.Pod{}, w) })
	c.eventually(20*time.Second, "the informer has listed", func() error {
		if w.last("counter") == "" {
			return errors.New("not yet")
		}
		return nil
	})

	want := []string{"0"}
	n := 0
	change := func(wait bool) {
		n++
		c.push(map[string]string{"n.yaml": number("counter", n)})
		want = append(want, strconv.Itoa(n))
		if wait {
			c.eventually(30*time.Second, "the informer tells of the change", func() error {
				if got := w.last("counter"); got != strconv.Itoa(n) {
					return fmt.Errorf("it last told %q, want %d", got, n)
				}
				return nil
			})
		}
	}
	for round := range 20 {
		change(true)
		if round%3 == 0 { // comes and goes while the informer is connected
			c.push(map[string]string{"x.yaml": number("x", round)})
			c.push(map[string]string{"x.yaml": ""})
		}
		c.kill()
		c.start()
		if round%2 == 0 {
			change(true) // perhaps before the informer is back
		}
	}
	change(true)
	c.eventually(30*time.Second, "x is gone for the informer too", func() error {
		if got := w.last("x"); got != "-" {
			return fmt.Errorf("it last told %q", got)
		}
		return nil
	})

	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.faults {
		t.Error(f)
	}
	if got := w.values["counter"]; !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("the informer told\n%v\nof what was pushed:\n%v", got, want)
	}
	if got := w.values["steady"]; len(got) != 1 {
		t.Errorf("the informer told of the steady ConfigMap %d times: %v", len(got), got)
	}
}
