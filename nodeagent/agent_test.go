package nodeagent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/nodeagent/runtimetest"
	"github.com/pawl-project/pawl/schema"
)

func TestPodComesAndGoes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		r.after(time.Second)
		c := r.only(p.UID)
		got, _ := r.report(p.UID)
		s := got.Pod.Status
		if got.Node != "n1" || s.Phase != corev1.PodRunning || !ready(s) || s.PodIP == "" || s.HostIP != "192.0.2.1" {
			t.Errorf("reported %+v", got)
		}
		if got.Pod.Spec.Containers[0].Image != "web:1" || s.ContainerStatuses[0].ContainerID != "containerd://"+c.ID {
			t.Errorf("reported %+v", got.Pod)
		}
		r.delete(p, 30)
		r.after(time.Second)
		r.empty(p.UID)
		if got, _ := r.report(p.UID); !got.Gone {
			t.Errorf("not reported gone: %+v", got)
		}
		if n := len(r.records()); n == 0 {
			t.Error("forgot the pod before its assignment was removed")
		}
		r.unassign(p)
		if left := r.records(); len(left) > 0 {
			t.Errorf("records left: %v", left)
		}
	})
}

func TestRestartBackOff(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		for i, want := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second} {
			r.exit(p.UID, 1)
			if want > 0 {
				r.after(want - time.Millisecond)
				if n := len(r.containers(p.UID)); n != 1 {
					t.Fatalf("before restart %d: %d containers, want the dead one", i+1, n)
				}
				if why := r.waitsFor(p.UID); !strings.HasPrefix(why, "CrashLoopBackOff: back-off "+want.String()) {
					t.Errorf("before restart %d: %s", i+1, why)
				}
			}
			r.after(2 * time.Millisecond)
			if c := r.only(p.UID); c.Attempt != i+1 {
				t.Fatalf("attempt %d after %v, want %d", c.Attempt, want, i+1)
			}
			if i == 1 { // the pauses are counted on by another agent
				r.kill()
				r.begin(true)
			}
		}
	})
}

func TestGracePeriodOutlivesTheAgent(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a", runtimetest.IgnoresTERM...)
		r.assign(p)
		r.delete(p, 20)
		r.after(15 * time.Second)
		r.only(p.UID)
		r.kill()
		r.begin(true)
		r.after(4 * time.Second)
		r.only(p.UID)
		r.after(2 * time.Second)
		r.empty(p.UID)
	})
}

func TestPullsThatFail(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		fails := errors.New("registry is down")
		var mu sync.Mutex
		asked := 0
		r.world.image = func(_ context.Context, q nodeagent.ImageRequest) (nodeagent.Image, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return nodeagent.Image{Ref: q.Image, ID: "sha256:1"}, fails
		}
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		r.after(time.Second)
		if why := r.waitsFor(p.UID); why != "ErrImagePull: registry is down" {
			t.Errorf("at first: %s", why)
		}
		r.after(2 * time.Second)
		if why := r.waitsFor(p.UID); !strings.HasPrefix(why, "ImagePullBackOff: ") {
			t.Errorf("then: %s", why)
		}
		r.after(60 * time.Second)
		mu.Lock()
		if asked != 3 { // at 0 s, 10–12 s, 30–36 s; next at 70–84 s
			t.Errorf("asked %d times in a minute, want 3", asked)
		}
		fails = nil
		mu.Unlock()
		r.after(25 * time.Second)
		r.only(p.UID)

		bad := newPod("b")
		bad.Spec.Containers[0].Image = "A:B:C"
		r.assign(bad)
		r.after(time.Second)
		if why := r.waitsFor(bad.UID); !strings.HasPrefix(why, "InvalidImageName: ") {
			t.Errorf("a bad name: %s", why)
		}
	})
}

func TestDeletionEndsAPull(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.world.image = func(ctx context.Context, _ nodeagent.ImageRequest) (nodeagent.Image, error) {
			<-ctx.Done()
			return nodeagent.Image{}, ctx.Err()
		}
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		r.delete(p, 30)
		r.after(time.Second)
		r.empty(p.UID)
	})
}

// What a pod refers to may come later; it is not found by polling.
func TestObjectsArrive(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a", runtimetest.Greets...)
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "GREETING", ValueFrom: &corev1.EnvVarSource{
			ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}, Key: "word"},
		}}}
		p.Spec.Volumes = []corev1.Volume{{Name: "files", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "files"}},
		}}}
		r.assign(p)
		r.after(time.Second)
		if why := r.waitsFor(p.UID); !strings.Contains(why, `ContainerCreating: configmap "files" not found`) {
			t.Errorf("without both: %s", why)
		}
		give := func(name string, data map[string]string) {
			m := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: data}
			r.ctl.h.Delta(nodeagent.Assigned{ConfigMaps: []corev1.ConfigMap{m}}, nil)
			synctest.Wait()
		}
		give("files", map[string]string{"f": "1"})
		r.after(time.Millisecond * 100)
		if why := r.waitsFor(p.UID); !strings.Contains(why, `CreateContainerConfigError: env GREETING: configmap "conf" not found`) {
			t.Errorf("without one: %s", why)
		}
		give("conf", map[string]string{"word": "hello"})
		r.after(time.Millisecond * 100)
		if got, _ := r.report(p.UID); got.Pod.Status.Phase != corev1.PodSucceeded {
			t.Errorf("with both: %+v", got.Pod.Status)
		}
	})
}

func TestVolumesFollowTheirObjects(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		p.Spec.Volumes = []corev1.Volume{{Name: "files", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "files"}},
		}}}
		for _, word := range []string{"one", "two"} {
			m := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "files"}, Data: map[string]string{"f": word}}
			r.ctl.h.Delta(nodeagent.Assigned{ConfigMaps: []corev1.ConfigMap{m}}, nil)
			r.assign(p)
			r.after(time.Second)
			r.world.mu.Lock()
			if got := r.world.volumes[p.UID]["files/f"]; got != word {
				t.Errorf("the volume says %q, want %q", got, word)
			}
			r.world.mu.Unlock()
		}
		if c := r.only(p.UID); c.Attempt != 0 {
			t.Errorf("restarted: %+v", c)
		}
	})
}

// A pod whose ConfigMap was removed under it goes on with the files it has.
func TestContainersRestartWithoutTheirObject(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		p.Spec.Volumes = []corev1.Volume{{Name: "files", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "files"}},
		}}}
		m := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "files"}, Data: map[string]string{"f": "1"}}
		r.ctl.h.Delta(nodeagent.Assigned{ConfigMaps: []corev1.ConfigMap{m}}, nil)
		r.assign(p)
		r.after(time.Second)
		r.ctl.h.Delta(nodeagent.Assigned{}, []schema.ObjectKey{{Kind: schema.ConfigMaps, Namespace: "default", Name: "files"}})
		r.after(time.Second)
		r.exit(p.UID, 1)
		r.after(time.Second)
		if got, _ := r.report(p.UID); got.Pod.Status.Phase != corev1.PodRunning || got.Pod.Status.ContainerStatuses[0].RestartCount != 1 {
			t.Errorf("after its container exited: %+v", got.Pod.Status)
		}
		r.after(time.Minute) // of gathering events
		r.ctl.mu.Lock()
		defer r.ctl.mu.Unlock()
		told := 0
		for _, e := range r.ctl.events {
			if e.Reason == "FailedMount" && strings.Contains(e.Message, `configmap "files" not found`) {
				told++
			}
		}
		if told == 0 {
			t.Errorf("nobody is told that the object is gone: %+v", r.ctl.events)
		}
	})
}

// One hung pod never blocks another, nor do as many as may start at once.
func TestHungPodsBlockNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.limit = 2
		r.world.trouble = func(ctx context.Context, call string) error {
			if call != "start hung#0" {
				return nil
			}
			<-ctx.Done()
			return fmt.Errorf("hung: %w: %w", ctx.Err(), schema.ErrUnavailable)
		}
		r.begin(true)
		for i := range 2 {
			p := newPod(fmt.Sprintf("h%d", i))
			p.Spec.Containers[0].Name = "hung"
			r.assign(p)
		}
		p := newPod("good")
		r.assign(p)
		r.after(11 * time.Second)
		r.only(p.UID)
		r.after(2 * time.Minute)
		if why := r.waitsFor(uidOf("h0")); !strings.HasPrefix(why, "CreateContainerError: hung") {
			t.Errorf("the hung pod: %s", why)
		}
		// A hung start is cut off when the agent stops: it does not keep it.
	})
}

// A lost store names nothing: nothing is removed, and everything is told again.
func TestAbsenceIsNoRemoval(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		r.after(time.Second)
		before := r.only(p.UID)
		r.ctl.mu.Lock()
		clear(r.ctl.assigned)
		clear(r.ctl.reports)
		r.ctl.mu.Unlock()
		r.ctl.sync()
		r.after(time.Second)
		if after := r.only(p.UID); after.ID != before.ID {
			t.Errorf("container %s became %s", before.ID, after.ID)
		}
		got, ok := r.report(p.UID)
		if !ok || got.Pod.Status.Phase != corev1.PodRunning || len(got.Pod.Spec.Containers) != 1 {
			t.Errorf("reported %+v", got)
		}
	})
}

// What the control plane does not name any more stays for the pods that use it,
// and goes with the last of them: a Secret above all.
func TestObjectsGoWithTheirPods(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "s"},
		}}}
		s := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Data: map[string][]byte{"K": []byte("v")}}
		r.ctl.h.Delta(nodeagent.Assigned{Secrets: []corev1.Secret{s}}, nil)
		r.assign(p)
		r.after(time.Second)
		r.kill()
		r.begin(true) // and the new whole set has no Secret
		r.after(time.Second)
		kept := func() int {
			entries, err := os.ReadDir(filepath.Join(r.data, "objects"))
			if err != nil {
				t.Fatal(err)
			}
			return len(entries)
		}
		if n := kept(); n != 1 {
			t.Errorf("with its pod there are %d objects", n)
		}
		r.delete(p, 0)
		r.after(time.Second)
		r.unassign(p)
		r.after(time.Second)
		if n := kept(); n != 0 {
			t.Errorf("without its pod there are %d objects", n)
		}
	})
}

// By its signature the cluster knows a pod again when it has lost its store: the
// agent keeps it on disk and hands it back with every word.
func TestSignaturesGoBack(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		r.ctl.h.Delta(nodeagent.Assigned{Assignments: []schema.Assignment{{Node: "n1", Pod: *p, Signature: "signed"}}}, nil)
		r.after(time.Second)
		if got, _ := r.report(p.UID); got.Signature != "signed" {
			t.Errorf("reported with signature %q", got.Signature)
		}
		r.kill()
		r.ctl.mu.Lock()
		clear(r.ctl.reports) // and nothing is assigned: the store was lost
		r.ctl.mu.Unlock()
		r.begin(true)
		r.after(time.Second)
		if got, _ := r.report(p.UID); got.Signature != "signed" || got.Pod.Status.Phase != corev1.PodRunning {
			t.Errorf("after a restart: %s with signature %q", got.Pod.Status.Phase, got.Signature)
		}
	})
}

// After a reboot the agent starts what it was assigned, with no control plane.
func TestRebootWithoutControlPlane(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "s"},
		}}}
		r.ctl.h.Delta(nodeagent.Assigned{Secrets: []corev1.Secret{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Data: map[string][]byte{"K": []byte("v")},
		}}}, nil)
		r.assign(p)
		r.after(time.Second)
		r.reboot()
		r.after(time.Minute)
		r.begin(false)
		r.after(time.Second)
		c := r.only(p.UID)
		if env := r.world.pods[p.UID].env[c.ID]; c.Attempt != 1 || len(env) != 1 || env[0] != "K=v" {
			t.Errorf("running %+v with %v", c, env)
		}
	})
}

// Of what has no record, nothing is touched before a whole set came; what the
// set names either is kept, the rest removed.
func TestRemnants(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		kept, lost := newPod("kept"), newPod("lost")
		r.assign(kept, lost)
		r.after(time.Second)
		before := r.only(kept.UID)
		r.world.volumes["no-pod"] = map[string]string{}
		r.kill()
		r.data = t.TempDir() // its disk is lost
		r.begin(false)
		r.after(time.Hour)
		r.only(lost.UID)
		r.kill()
		delete(r.ctl.assigned, schema.PodKey{Namespace: "default", Name: "lost"})
		clear(r.ctl.reports)
		r.begin(true)
		r.after(time.Minute)
		r.empty(lost.UID)
		if after := r.only(kept.UID); after.ID != before.ID {
			t.Errorf("container %s became %s", before.ID, after.ID)
		}
		if _, ok := r.report(lost.UID); ok {
			t.Error("a remnant was reported")
		}
		if r.world.volumes["no-pod"] == nil {
			t.Error("removed what is no pod's")
		}
	})
}

// An explicit removal of a pod that is there is an order.
func TestExplicitRemoval(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		r.unassign(p)
		r.after(time.Second)
		r.empty(p.UID)
		if left := r.records(); len(left) > 0 {
			t.Errorf("records left: %v", left)
		}
	})
}

// A pod of the same name waits until the one before it is gone.
func TestOneNameOnePod(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		old := newPod("a", runtimetest.IgnoresTERM...)
		r.assign(old)
		next := newPod("a")
		next.UID = uidOf("next")
		r.assign(next)
		r.after(29 * time.Second)
		r.only(old.UID)
		if n := len(r.containers(next.UID)); n > 0 {
			t.Errorf("%d containers of the next one beside the old one", n)
		}
		r.after(2 * time.Second)
		r.empty(old.UID)
		r.only(next.UID)
		if got, _ := r.report(old.UID); !got.Gone {
			t.Errorf("the old one was not reported gone: %+v", got)
		}
	})
}

// A pod that waits for its name and is assigned no longer does not begin.
func TestWaitingPodIsCalledOff(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		old := newPod("a", runtimetest.IgnoresTERM...)
		r.assign(old)
		next := newPod("a")
		next.UID = uidOf("next")
		r.assign(next)
		r.ctl.mu.Lock()
		clear(r.ctl.assigned)
		r.ctl.mu.Unlock()
		r.ctl.sync()
		r.after(40 * time.Second)
		r.empty(old.UID)
		r.empty(next.UID)
	})
}

func TestReadiness(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		var answer error
		r.probe = func(context.Context, string, *corev1.Probe) error {
			mu.Lock()
			defer mu.Unlock()
			return answer
		}
		say := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			answer = err
		}
		isReady := func() bool {
			got, _ := r.report(uidOf("a"))
			return ready(got.Pod.Status)
		}
		p := newPod("a")
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{InitialDelaySeconds: 5, PeriodSeconds: 2, FailureThreshold: 3}
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{InitialDelaySeconds: 60, PeriodSeconds: 10, FailureThreshold: 2}
		r.begin(true)
		r.assign(p)
		r.after(4 * time.Second)
		if isReady() {
			t.Error("ready before the initial delay")
		}
		r.after(1100 * time.Millisecond)
		if !isReady() {
			t.Error("not ready after a success")
		}
		say(errors.New("503"))
		r.after(4 * time.Second)
		if !isReady() {
			t.Error("not ready after two failures of three")
		}
		r.after(2 * time.Second)
		if isReady() {
			t.Error("ready after three failures")
		}
		say(nil)
		r.after(2 * time.Second)

		// A restarted agent does not take it out of service meanwhile.
		r.kill()
		r.begin(true)
		for _, line := range r.ctl.history {
			if strings.Contains(line, "Pending gone") && !strings.HasPrefix(line, "a Pending") {
				t.Error(line)
			}
		}
		if !isReady() {
			t.Error("not ready after the agent's restart")
		}

		r.after(50 * time.Second)
		say(errors.New("deadlock"))
		r.after(21 * time.Second)
		if c := r.only(p.UID); c.Attempt != 1 {
			t.Errorf("liveness: attempt %d runs, want 1", c.Attempt)
		}
		r.delete(p, 1)
		r.after(3 * time.Second)
		r.empty(p.UID)
	})
}

// Killed between any two calls, the agent goes on: one container, never two, and
// the same process when there was one.
func TestKilledBetweenAnyTwoCalls(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := range 12 {
			t.Run(fmt.Sprintf("call %d after=%v", at, after), func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) { killedAt(t, r, at, after) })
			})
		}
	}
}

func killedAt(t *testing.T, r *rig, at int, after bool) {
	n := 0
	die := func(_ string, late bool) bool {
		if late != after {
			return false
		}
		n++
		return n == at+1
	}
	p := newPod("a")
	p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0])
	p.Spec.Containers[1].Name = "log"
	r.ctl.assigned[schema.PodKey{Namespace: "default", Name: "a"}] = schema.Assignment{Node: "n1", Pod: *p}
	r.die = die
	r.begin(true)
	r.after(time.Minute)
	if r.handle.dead {
		r.kill()
		r.begin(true)
		r.after(time.Minute)
	}
	for _, c := range r.containers(p.UID) {
		if c.State != pod.ContainerRunning || c.Attempt != 0 {
			t.Errorf("there is %+v", c)
		}
	}
	if n := len(r.containers(p.UID)); n != 2 {
		t.Fatalf("%d containers, want 2", n)
	}
	r.delete(p, 30)
	r.after(time.Minute)
	if r.handle.dead {
		r.kill()
		r.begin(true)
		r.after(time.Minute)
	}
	r.empty(p.UID)
	r.unassign(p)
	if left := r.records(); len(left) > 0 {
		t.Errorf("records left: %v", left)
	}
}

func TestReportsAreCoalesced(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		r.after(time.Second)
		r.ctl.down = errors.New("gateway is away")
		pods := make([]*corev1.Pod, 100)
		for i := range pods {
			pods[i] = newPod(fmt.Sprintf("p%d", i))
		}
		r.assign(pods...)
		r.after(time.Minute)
		r.ctl.mu.Lock()
		r.ctl.down = nil
		r.ctl.mu.Unlock()
		r.after(30 * time.Second)
		if r.ctl.messages != 2 || r.ctl.total != 100 {
			t.Errorf("%d messages with %d reports, want the newest of 100 pods in 2", r.ctl.messages, r.ctl.total)
		}
		for _, p := range pods {
			if got, _ := r.report(p.UID); got.Pod.Status.Phase != corev1.PodRunning {
				t.Fatalf("%s: %s", p.Name, got.Pod.Status.Phase)
			}
		}
	})
}

func TestARefusedReportHoldsUpNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		refuse := &refusing{control: r.ctl, name: "bad"}
		r.link = refuse
		r.begin(true)
		r.assign(newPod("bad"), newPod("good"))
		r.after(time.Minute)
		if got, _ := r.report(uidOf("good")); got.Pod.Status.Phase != corev1.PodRunning {
			t.Errorf("reported %+v", got)
		}
	})
}

// refusing does not take reports of one pod.
type refusing struct {
	*control
	name string
}

func (c *refusing) ReportPods(ctx context.Context, reports []schema.PodReport) error {
	for _, r := range reports {
		if r.Pod.Name == c.name {
			return fmt.Errorf("report of %s: %w", c.name, schema.ErrRefused)
		}
	}
	return c.control.ReportPods(ctx, reports)
}

func TestNodeReport(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		r.after(time.Minute)
		r.ctl.mu.Lock()
		defer r.ctl.mu.Unlock()
		if n := len(r.ctl.nodes); n < 6 || n > 8 {
			t.Errorf("%d heartbeats in a minute", n)
		}
		n := r.ctl.nodes[0]
		if n.Name != "n1" || n.Status.Capacity.Pods().Value() != 110 || n.Status.Capacity.Memory().Value() == 0 ||
			n.Status.Capacity.Cpu().Value() == 0 || n.Status.Addresses[0].Address != "192.0.2.1" || n.Status.NodeInfo.KernelVersion == "" {
			t.Errorf("reported %+v", n)
		}
	})
}

// What cannot be recorded is not begun: a restarted agent would not know it.
func TestWhatIsNotOnDiskIsNotBegun(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		pods := filepath.Join(r.data, "pods")
		check(t, os.Remove(pods))
		check(t, os.WriteFile(pods, nil, 0o600)) // the disk is in a bad way
		p, gone := newPod("a"), newPod("gone")
		r.assign(p)
		r.delete(gone, 0) // a deletion makes room: it does not wait
		r.after(time.Second)
		if n := len(r.containers(p.UID)); n > 0 {
			t.Errorf("%d containers of a pod without a record", n)
		}
		if why := r.waitsFor(p.UID); !strings.Contains(why, "ContainerCreating: ") || !strings.Contains(why, "not a directory") {
			t.Errorf("reported %q", why)
		}
		if got, _ := r.report(gone.UID); !got.Gone {
			t.Errorf("reported %+v", got)
		}
		check(t, os.Remove(pods))
		check(t, os.Mkdir(pods, 0o700))
		r.after(5 * time.Second)
		r.only(p.UID)
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An exit that no event told of is found all the same.
func TestLostEvents(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		r.after(time.Second)
		r.world.mu.Lock()
		watches := r.world.watches
		r.world.watches = nil
		c := &r.world.pods[p.UID].containers[0]
		r.world.exit(p.UID, c, 1)
		r.world.watches = watches
		r.world.mu.Unlock()
		r.after(7 * time.Minute)
		if c := r.only(p.UID); c.Attempt != 1 {
			t.Errorf("attempt %d runs", c.Attempt)
		}
	})
}

// While the runtime cannot tell, nothing is done; when it can, all goes on.
func TestRuntimeAway(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		away := false
		r.world.trouble = func(context.Context, string) error {
			mu.Lock()
			defer mu.Unlock()
			if away {
				return schema.ErrUnavailable
			}
			return nil
		}
		r.begin(true)
		p, q := newPod("a"), newPod("b")
		r.assign(p)
		r.after(time.Second)
		before := r.only(p.UID)
		mu.Lock()
		away = true
		mu.Unlock()
		r.assign(q)
		r.after(time.Minute)
		mu.Lock()
		away = false
		mu.Unlock()
		r.after(11 * time.Second)
		r.only(q.UID)
		if after := r.only(p.UID); after.ID != before.ID {
			t.Errorf("container %s became %s", before.ID, after.ID)
		}
	})
}

// That a pod is gone is said until it is stored, and again after a sync, for as
// long as the control plane still assigns it.
func TestGoneIsToldUntilItIsKnown(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		r.after(time.Second)
		r.ctl.mu.Lock()
		r.ctl.down = errors.New("gateway is away")
		r.ctl.mu.Unlock()
		r.delete(p, 5)
		r.after(time.Minute)
		r.empty(p.UID)
		r.ctl.mu.Lock()
		r.ctl.down = nil
		r.ctl.mu.Unlock()
		r.ctl.sync()
		r.after(time.Second)
		if got, _ := r.report(p.UID); !got.Gone {
			t.Errorf("reported %+v", got)
		}
		r.ctl.mu.Lock()
		clear(r.ctl.reports)
		r.ctl.mu.Unlock()
		r.kill()
		r.begin(true)
		r.after(time.Second)
		if got, _ := r.report(p.UID); !got.Gone {
			t.Errorf("a restarted agent reported %+v", got)
		}
		r.unassign(p)
		if left := r.records(); len(left) > 0 {
			t.Errorf("records left: %v", left)
		}
	})
}

// Only pull secrets of the right type, and of the pod's namespace, are shown to
// a registry.
func TestPullSecrets(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var shown []string
		r.world.image = func(_ context.Context, q nodeagent.ImageRequest) (nodeagent.Image, error) {
			for _, s := range q.Auth {
				shown = append(shown, s.Namespace+"/"+s.Name)
			}
			return nodeagent.Image{Ref: q.Image, ID: "sha256:1"}, nil
		}
		secret := func(ns, name string, kind corev1.SecretType) corev1.Secret {
			return corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Type: kind}
		}
		r.ctl.secrets = []corev1.Secret{
			secret("default", "pull", corev1.SecretTypeDockerConfigJson), secret("other", "pull2", corev1.SecretTypeDockerConfigJson),
			secret("default", "opaque", corev1.SecretTypeOpaque),
		}
		p := newPod("a")
		for _, n := range []string{"pull", "pull2", "opaque", "missing"} {
			p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: n})
		}
		r.begin(true)
		r.assign(p)
		r.after(time.Second)
		if len(shown) != 1 || shown[0] != "default/pull" {
			t.Errorf("shown %v", shown)
		}
	})
}

// A node is not reported before its pods are: nobody is to place pods by a
// picture that lacks them.
func TestPodsAreToldBeforeTheNode(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		r.after(time.Second)
		r.kill()
		r.ctl.mu.Lock()
		clear(r.ctl.assigned)
		clear(r.ctl.reports)
		r.ctl.nodes = nil
		r.ctl.mu.Unlock()
		r.link = &slow{control: r.ctl, by: 3 * time.Second}
		r.begin(true)
		r.after(2 * time.Second)
		if n := r.heartbeats(); n > 0 {
			t.Errorf("%d reports of the node before the pod's", n)
		}
		r.after(2 * time.Second)
		if _, ok := r.report(p.UID); !ok || r.heartbeats() != 1 {
			t.Errorf("pod told: %v, %d reports of the node, want one", ok, r.heartbeats())
		}
	})
}

// slow takes its time to store pods.
type slow struct {
	*control
	by time.Duration
}

func (c *slow) ReportPods(ctx context.Context, reports []schema.PodReport) error {
	t := time.NewTimer(c.by)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.control.ReportPods(ctx, reports)
}
