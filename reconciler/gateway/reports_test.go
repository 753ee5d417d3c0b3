package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func (a *agent) report(t testing.TB, reports ...schema.PodReport) {
	t.Helper()
	if err := a.ReportPods(context.Background(), reports); err != nil {
		t.Fatal(err)
	}
}

func gone(r schema.PodReport) schema.PodReport {
	r.Gone = true
	return r
}

func podKey(name string) string {
	return kv.ObjectKey(schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: name})
}

func TestSameReportIsNotWrittenAgain(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("a"))
	a := c.agent("n1")
	a.report(t, report("n1", pod("a"), corev1.PodRunning))
	rev := c.revision(kv.Actuals, podKey("a"))
	for range 5 {
		a.report(t, report("n1", pod("a"), corev1.PodRunning))
	}
	if got := c.revision(kv.Actuals, podKey("a")); got != rev {
		t.Errorf("written again: revision %d after %d", got, rev)
	}
	a.report(t, report("n1", pod("a"), corev1.PodFailed))
	if c.stored("a").Pod.Status.Phase != corev1.PodFailed {
		t.Error("the news is not stored")
	}
}

// The life of a pod as the store sees it: assigned, running, told to go, gone,
// deleted by the reconciler; what the agent says after that is old news.
func TestGonePods(t *testing.T) {
	c := newCluster(t)
	p := pod("a")
	c.assign("n1", p)
	a := c.agent("n1")
	a.report(t, report("n1", p, corev1.PodRunning))
	going := p.DeepCopy()
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	going.DeletionTimestamp = &now
	c.assign("n1", going)
	eventually(t, "the agent is told", a.holds(func(a *agent) bool { return a.pods["a"].DeletionTimestamp != nil }))
	a.report(t, gone(report("n1", p, corev1.PodSucceeded)))
	if got := c.stored("a"); !got.Gone || got.Pod.DeletionTimestamp == nil {
		t.Errorf("stored: %+v", got)
	}
	c.remove(kv.Assignments, kv.AssignmentKey("n1", schema.PodKey{Namespace: "default", Name: "a"}))
	c.remove(kv.Actuals, podKey("a"))
	a.report(t, gone(report("n1", p, corev1.PodSucceeded))) // its ack was lost, say
	if got := c.stored("a"); got != nil {
		t.Errorf("a pod that is gone is back: %+v", got)
	}

	// A new pod of the name: old words about the old one do not cover it.
	next := pod("a", func(p *corev1.Pod) { p.UID = "second" })
	c.assign("n1", next)
	a.report(t, report("n1", next, corev1.PodRunning))
	a.report(t, report("n1", p, corev1.PodFailed), gone(report("n1", p, corev1.PodFailed)))
	if got := c.stored("a"); got.Pod.UID != "second" || got.Pod.Status.Phase != corev1.PodRunning {
		t.Errorf("stored: %+v", got)
	}
}

// The store was lost: what runs is reported though nobody assigned it.
func TestStraysAreStoredUpToABound(t *testing.T) {
	c := newCluster(t)
	a := c.agent("n1")
	stray := pod("stray", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} })
	a.report(t, report("n1", stray, corev1.PodRunning))
	if got := c.stored("stray"); got == nil || got.Pod.Labels["app"] != "web" || len(got.Pod.Spec.Containers) != 1 {
		t.Fatalf("stored: %+v", got)
	}
	c.assign("n1", stray) // adopted
	a.report(t, report("n1", stray, corev1.PodFailed))
	if got := c.stored("stray"); got.Pod.Status.Phase != corev1.PodFailed {
		t.Errorf("stored: %+v", got)
	}

	var many []schema.PodReport
	for i := range maxStrays - 1 { // the adopted one counts
		many = append(many, report("n1", pod(fmt.Sprint("s", i)), corev1.PodRunning))
	}
	a.report(t, many...)
	if err := a.ReportPods(t.Context(), []schema.PodReport{report("n1", pod("one-more"), corev1.PodRunning)}); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a stray beyond the bound: %v", err)
	}
	a.report(t, report("n1", pod("s0"), corev1.PodFailed)) // a known one
	c.remove(kv.Actuals, podKey("s1"))
	a.report(t, report("n1", pod("one-more"), corev1.PodRunning))
}

func TestStoredBytesAreBounded(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("mine"))
	a := c.agent("n1")
	fat := report("n1", pod("mine"), corev1.PodRunning)
	fat.Pod.Status.Message = strings.Repeat("x", maxStatus)
	if err := a.ReportPods(t.Context(), []schema.PodReport{fat}); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a status of %d bytes: %v", maxStatus, err)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Annotations: map[string]string{"x": strings.Repeat("x", maxNode)}}}
	if err := a.ReportNode(t.Context(), node); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a node of %d bytes: %v", maxNode, err)
	}
	c.stopGateway()
	n := c.gateway.node("n1")
	stored := 0
	for i := range 100 {
		if c.gateway.mayStray(n, schema.PodKey{Namespace: "default", Name: fmt.Sprint("s", i)}, 1<<20) {
			stored++
			c.put(kv.Actuals, podKey(fmt.Sprint("s", i)), report("n1", pod(fmt.Sprint("s", i)), corev1.PodRunning))
		}
	}
	if stored != maxStrayBytes>>20 || n.strayBytes != maxStrayBytes {
		t.Errorf("%d strays of a megabyte are stored, %d bytes", stored, n.strayBytes)
	}
}

// The reconciler and the gateway write the same key: nobody's word is lost, and
// nobody waits for ever.
func TestConflictsAreTriedAgain(t *testing.T) {
	c := newCluster(t)
	for i := range 30 {
		c.assign("n1", pod(fmt.Sprint("p", i)))
	}
	a := c.agent("n1")
	var reconciler sync.WaitGroup
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop); reconciler.Wait() })
	defer end()
	reconciler.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			key := podKey(fmt.Sprint("p", i%30))
			e, ok := c.actual.Get(key)
			if !ok {
				continue
			}
			w := kv.Write{Bucket: kv.Actuals, Key: key, Delete: true, Revision: e.Revision}
			// Not applied: the views hear of it late, as those of another process would.
			if _, err := c.store.Commit(context.Background(), []kv.Write{w}); err != nil && !errors.Is(err, schema.ErrConflict) {
				t.Error(err)
			}
		}
	})
	for round := range 20 {
		var reports []schema.PodReport
		for i := range 30 {
			r := report("n1", pod(fmt.Sprint("p", i)), corev1.PodRunning)
			r.Pod.Status.Message = fmt.Sprint("round ", round)
			reports = append(reports, r)
		}
		for try := 0; ; try++ {
			err := a.ReportPods(t.Context(), reports)
			if err == nil {
				break
			}
			if !errors.Is(err, schema.ErrUnavailable) || try > 20 {
				t.Fatal(err)
			}
		}
	}
	end()
	var last []schema.PodReport
	for i := range 30 {
		last = append(last, report("n1", pod(fmt.Sprint("p", i)), corev1.PodSucceeded))
	}
	eventually(t, "reports go through", func() bool { return a.ReportPods(t.Context(), last) == nil })
	for i := range 30 {
		if got := c.stored(fmt.Sprint("p", i)); got == nil || got.Pod.Status.Phase != corev1.PodSucceeded {
			t.Errorf("p%d: %+v", i, got)
		}
	}
}

func TestHeartbeatsAreNotWritten(t *testing.T) {
	c := newCluster(t)
	a := c.agent("n1")
	key := kv.ObjectKey(schema.ObjectKey{Kind: schema.Nodes, Name: "n1"})
	beat := func(ready corev1.ConditionStatus) uint64 {
		t.Helper()
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: ready, LastHeartbeatTime: metav1.NewTime(time.Now()),
		}}}}
		if err := a.ReportNode(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		return c.revision(kv.Actuals, key)
	}
	first := beat(corev1.ConditionTrue)
	lease := must[kv.Lease](t)(c.store.GetLease(t.Context(), kv.NodeLeaseKey("n1")))
	if beat(corev1.ConditionTrue) != first || first == 0 {
		t.Error("a heartbeat is written")
	}
	if l := must[kv.Lease](t)(c.store.GetLease(t.Context(), kv.NodeLeaseKey("n1"))); l.Revision <= lease.Revision {
		t.Error("a heartbeat does not renew the lease")
	}
	if beat(corev1.ConditionFalse) == first {
		t.Error("a change is not written")
	}
	e, _ := c.actual.Get(key)
	if n, ok := e.Value.Object.(*corev1.Node); !ok || n.Kind != "Node" || n.APIVersion != "v1" {
		t.Errorf("stored: %+v", e.Value.Object)
	}
}

// One node sends garbage as fast as it can; the other does not notice.
func TestFloodStopsOnlyItsNode(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("a"))
	good := c.agent("n1")
	bad := c.raw(must[kv.Credentials](t)(c.server.NodeCredentials("bad")), "_INBOX.bad")
	stop := make(chan struct{})
	var flood sync.WaitGroup
	for _, garbage := range [][]byte{
		[]byte("{"), []byte("[[[[[[[["), bytes.Repeat([]byte("["), 100_000), []byte("null"), []byte("[null,null]"), []byte(`[{"pod":{"spec":{"containers":[null]}}}]`),
		[]byte(`{"metadata":{"name":"bad"},"status":{"capacity":{"cpu":"x"}}}`), bytes.Repeat([]byte("x"), 900_000), nil,
	} {
		flood.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				verb := []string{"pods", "node", "sync", "other"}[i%4]
				if err := bad.nc.PublishRequest("pawl.up.bad."+verb, "_INBOX.bad.x", garbage); err != nil {
					return // the server has had enough
				}
				if i%100 == 0 {
					bad.nc.Flush()
				}
			}
		})
	}
	var most uint64
	for i := range 100 {
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		most = max(most, mem.HeapInuse)
		r := report("n1", pod("a"), corev1.PodRunning)
		r.Pod.Status.Message = fmt.Sprint(i)
		began := time.Now()
		if err := good.ReportPods(t.Context(), []schema.PodReport{r}); err != nil {
			t.Fatalf("report %d, after %s: %v", i, time.Since(began), err)
		}
	}
	close(stop)
	flood.Wait()
	// Server, gateway and attackers together.
	if most > 512<<20 {
		t.Errorf("%d MiB are in use", most>>20)
	}
	t.Logf("at most %d MiB in use", most>>20)
	if c.stored("a").Pod.Status.Message != "99" {
		t.Error("the newest report is not stored")
	}
	f := c.gateway.Faults()
	if f["report cannot be read"] == 0 || f["too many requests"] == 0 || f["unknown subject"] == 0 {
		t.Errorf("faults: %v", f)
	}
	keys := must[[]string](t)(kv.ReadKeys(t.Context(), c.control, kv.Actuals))
	if len(keys) != 1 {
		t.Errorf("the flood wrote: %q", keys)
	}
}

func TestInboxIsBounded(t *testing.T) {
	b := newInbox()
	refused := 0
	for i := range 3 * waitingMost {
		if err := b.put(&entry{key: fmt.Sprint(i), node: "n1"}, &job{}); err != nil {
			refused++
		}
	}
	if refused != 2*waitingMost {
		t.Errorf("%d refused", refused)
	}
	refused = 0
	for i := range 100 {
		if err := b.put(&entry{key: fmt.Sprint("big", i), node: "n2", value: make([]byte, 1<<20)}, &job{}); err != nil {
			refused++
		}
	}
	if refused != 100-waitingBytes>>20 {
		t.Errorf("%d refused", refused)
	}
	// A newer word takes the place of the older one, with all who wait for it.
	j := &job{}
	for range 10 {
		if err := b.put(&entry{key: "0", node: "n1", value: []byte("x")}, j); err != nil {
			t.Fatal(err)
		}
	}
	if e := b.entries["0"]; len(e.jobs) != 11 || j.waiting != 10 {
		t.Errorf("%d wait for it, %d times", len(e.jobs), j.waiting)
	}
	// A word that comes while an older one is being written goes with the next batch, once.
	b.taken(b.batch(time.Now())[:1])
	if err := b.put(&entry{key: "0", node: "n1"}, j); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for len(b.entries) > 0 {
		batch := b.batch(time.Now())
		for _, e := range batch {
			if seen[e.key] {
				t.Fatalf("%s is in two places", e.key)
			}
			seen[e.key] = true
		}
		b.taken(batch)
	}
	if len(b.count) != 0 || len(b.bytes) != 0 {
		t.Errorf("an empty inbox counts %v, %v", b.count, b.bytes)
	}
	if len(b.order) != 0 {
		t.Errorf("an empty inbox remembers %d keys", len(b.order))
	}
}

// A secret's content stands in no log, and a Secret that cannot be opened holds
// up nobody but the pods that use it.
func TestSecretsStayOutOfLogs(t *testing.T) {
	c := newCluster(t)
	var mu sync.Mutex
	var text bytes.Buffer
	c.stopGateway()
	c.gateway = New(Options{
		Nodes: c.nodes, Store: c.store, Assignments: c.assignments, Desired: c.desired, Actual: c.actual,
		OpenSecret: func(s *corev1.Secret) (*corev1.Secret, error) {
			if s.Name == "broken" {
				return nil, fmt.Errorf("open %s: %w", s.Name, schema.ErrRefused)
			}
			return c.sealer.Open(s)
		},
		Signed: c.sealer.Signed,
		Logger: slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return text.Write(p)
		}), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	c.run(c.gateway.Run)
	c.desire(secret("password", "opensesame"))
	c.desire(secret("broken", "opensesame"))
	uses := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: name}} }
	}
	c.assign("n1", pod("good", uses("password")))
	a := c.agent("n1")
	c.assign("n1", pod("bad", uses("broken")))
	eventually(t, "both pods are there, and the secret that opens", a.holds(func(a *agent) bool {
		return len(a.pods) == 2 && len(a.secret) == 1
	}))
	c.desire(secret("password", "opensesame too"))
	eventually(t, "the secret changes", a.holds(func(a *agent) bool { return string(a.secret["password"].Data["key"]) == "opensesame too" }))
	a.ReportPods(t.Context(), []schema.PodReport{report("n1", pod("x/y"), "")})
	eventually(t, "faults are logged", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(text.String(), "secret cannot be opened")
	})
	mu.Lock()
	defer mu.Unlock()
	for _, clear := range []string{"opensesame", "b3BlbnNlc2FtZ"} {
		if strings.Contains(text.String(), clear) {
			t.Errorf("the log says %q:\n%s", clear, text.String())
		}
	}
	if f := c.gateway.Faults(); f["secret cannot be opened"] == 0 {
		t.Errorf("faults: %v", f)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestFaultsAreLoggedOnceAMinute(t *testing.T) {
	var lines int
	f := newFaults(slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) { lines++; return len(p), nil }), nil)))
	for range 1000 {
		f.count("n1", "a")
		f.count("n2", "b")
	}
	if lines != 2 || f.totals()["a"] != 1000 {
		t.Errorf("%d lines, %v", lines, f.totals())
	}
}

func TestReferencesOfAPod(t *testing.T) {
	name := func(s string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: s} }
	p := pod("a", func(p *corev1.Pod) {
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{name("pull")}
		p.Spec.Volumes = []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name("cm-volume")}}},
			{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s-volume"}}},
			{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: name("cm-projected")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: name("s-projected")}},
				{DownwardAPI: &corev1.DownwardAPIProjection{}},
			}}}},
		}
		p.Spec.InitContainers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name("s-init")}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name("cm-init")}},
		}}}
		p.Spec.Containers[0].Env = []corev1.EnvVar{
			{Name: "A", Value: "plain"},
			{Name: "B", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: name("cm-env")}}},
			{Name: "C", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: name("s-env")}}},
			{Name: "D", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "E", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{}}},
		}
	})
	var got []string
	for _, k := range sortedKeys(references(p)) {
		got = append(got, k.String())
	}
	want := "configmaps/default/cm-env configmaps/default/cm-init configmaps/default/cm-projected configmaps/default/cm-volume " +
		"secrets/default/pull secrets/default/s-env secrets/default/s-init secrets/default/s-projected secrets/default/s-volume"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

func BenchmarkReport(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := newCluster(b)
			for i := range n {
				c.assign("n1", pod(fmt.Sprint("p", i)))
			}
			a := c.agent("n1")
			round := 0
			for b.Loop() {
				round++
				reports := make([]schema.PodReport, n)
				for i := range reports {
					reports[i] = report("n1", pod(fmt.Sprint("p", i)), corev1.PodRunning)
					reports[i].Pod.Status.Message = fmt.Sprint(round)
				}
				for {
					err := a.ReportPods(b.Context(), reports)
					if err == nil {
						break
					}
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAssign is the time from an assignment's write to its arrival.
func BenchmarkAssign(b *testing.B) {
	c := newCluster(b)
	a := c.agent("n1")
	p := pod("p")
	for b.Loop() {
		p.UID = types.UID(fmt.Sprint("uid", b.N, time.Now().UnixNano()))
		c.assign("n1", p)
		for !a.holds(func(a *agent) bool { return a.pods["p"].UID == p.UID })() {
			<-time.After(20 * time.Microsecond)
		}
	}
}
