package nodeagent_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/nodeagent/runtimetest"
	"github.com/pawl-project/pawl/schema"
)

// busyPod has an init container, a sidecar, hooks and a volume.
func busyPod() *corev1.Pod {
	p := newPod("a")
	sleep := func(seconds int64) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: seconds}}
	}
	container := func(name string, command runtimetest.Command) corev1.Container {
		c := *p.Spec.Containers[0].DeepCopy()
		c.Name, c.Command = name, command
		return c
	}
	prep, proxy := container("prep", runtimetest.Exits0), container("proxy", runtimetest.HonoursTERM)
	proxy.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	proxy.Lifecycle = &corev1.Lifecycle{PreStop: sleep(1)}
	web := container("web", runtimetest.HonoursTERM)
	web.Lifecycle = &corev1.Lifecycle{PostStart: sleep(2), PreStop: sleep(3)}
	p.Spec.InitContainers = []corev1.Container{prep, proxy}
	p.Spec.Containers = []corev1.Container{web, container("log", runtimetest.HonoursTERM)}
	p.Spec.Volumes = []corev1.Volume{{Name: "files", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "files"}},
	}}}
	return p
}

// A busy pod comes up and goes whole, wherever the agent is killed.
func TestBusyPodKilledBetweenAnyTwoCalls(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := range 40 {
			t.Run(fmt.Sprintf("call %d after=%v", at, after), func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) { busyKilledAt(t, r, at, after) })
			})
		}
	}
}

func busyKilledAt(t *testing.T, r *rig, at int, after bool) {
	n := 0
	r.die = func(_ string, late bool) bool {
		if late == after {
			n++
		}
		return late == after && n == at+1
	}
	again := func() {
		r.after(time.Minute)
		if r.handle.dead {
			r.kill()
			r.begin(true)
			r.after(time.Minute)
		}
	}
	p := busyPod()
	r.ctl.maps = []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "files"}, Data: map[string]string{"f": "1"}}}
	r.ctl.assigned[schema.PodKey{Namespace: "default", Name: "a"}] = schema.Assignment{Node: "n1", Pod: *p}
	r.begin(true)
	again()
	if got, _ := r.report(p.UID); got.Pod.Status.Phase != corev1.PodRunning || !ready(got.Pod.Status) {
		t.Errorf("it is %s: %+v", got.Pod.Status.Phase, got.Pod.Status.ContainerStatuses)
	}
	states := map[string]pod.ContainerState{}
	for _, c := range r.containers(p.UID) {
		if c.Attempt != 0 || states[c.Name] != "" {
			t.Errorf("there is %+v", c)
		}
		states[c.Name] = c.State
	}
	if fmt.Sprint(states) != "map[log:running prep:exited proxy:running web:running]" {
		t.Errorf("containers are %v", states)
	}
	r.delete(p, 30)
	again()
	r.empty(p.UID)
	r.unassign(p)
	if left := r.records(); len(left) > 1 { // the ConfigMap's
		t.Errorf("records left: %v", left)
	}
}

// Nor does it matter when: a hook that was under way is run again, and the grace
// period goes on.
func TestBusyPodKilledAtAnyMoment(t *testing.T) {
	for at := time.Duration(0); at < 6*time.Second; at += 500 * time.Millisecond {
		t.Run(at.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				p := busyPod()
				r.ctl.maps = []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "files"}, Data: map[string]string{"f": "1"}}}
				r.begin(true)
				r.assign(p)
				r.after(at)
				r.kill()
				r.begin(true)
				r.after(time.Minute)
				if got, _ := r.report(p.UID); got.Pod.Status.Phase != corev1.PodRunning || !ready(got.Pod.Status) {
					t.Errorf("it is %s: %+v", got.Pod.Status.Phase, got.Pod.Status.ContainerStatuses)
				}
				for _, c := range r.containers(p.UID) {
					if c.Attempt != 0 {
						t.Errorf("restarted: %+v", c)
					}
				}
				r.delete(p, 30)
				r.after(at)
				r.kill()
				r.begin(true)
				r.after(30*time.Second - at)
				r.empty(p.UID)
			})
		})
	}
}
