package nodeagent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/nodeagent/runtimetest"
	"github.com/pawl-project/pawl/schema"
)

// told is the Events about one object, as kubectl shows them, oldest first.
func (r *rig) told(object string) []string {
	r.ctl.mu.Lock()
	defer r.ctl.mu.Unlock()
	var events []corev1.Event
	for _, e := range r.ctl.events {
		if e.InvolvedObject.Name == object {
			events = append(events, e)
		}
	}
	slices.SortFunc(events, func(a, b corev1.Event) int {
		if c := a.FirstTimestamp.Compare(b.FirstTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Reason+a.Message, b.Reason+b.Message)
	})
	var lines []string
	for _, e := range events {
		where := strings.TrimPrefix(e.InvolvedObject.FieldPath, "spec.")
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s ×%d %s %s", e.Type, e.Reason, e.Count, e.Message, where)))
	}
	return lines
}

func (r *rig) wantTold(object string, want ...string) {
	r.t.Helper()
	got := r.told(object)
	for _, w := range want {
		if !slices.Contains(got, w) {
			r.t.Errorf("nobody was told\n  %s\nbut\n  %s", w, strings.Join(got, "\n  "))
		}
	}
}

func TestALifeIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.world.image = func(_ context.Context, q nodeagent.ImageRequest) (nodeagent.Image, error) {
			if q.Image == "fresh:1" {
				q.Pulling()
				return nodeagent.Image{Ref: q.Image, ID: "sha256:1", Pulled: true, Took: 1234567 * time.Microsecond, Bytes: 4242}, nil
			}
			return nodeagent.Image{Ref: q.Image, ID: "sha256:2"}, nil
		}
		r.begin(true)
		p := newPod("a")
		p.Spec.InitContainers = []corev1.Container{{Name: "prepare", Image: "there:1", Command: runtimetest.Exits0}}
		p.Spec.Containers[0].Image = "fresh:1"
		name := p.Spec.Containers[0].Name
		r.assign(p)
		r.after(time.Second)
		r.delete(p, 30)
		r.after(time.Second)
		got := r.told("a")
		want := []string{
			`Normal Created ×1 Created container: prepare initContainers{prepare}`,
			`Normal Pulled ×1 Container image "there:1" already present on machine initContainers{prepare}`,
			`Normal Started ×1 Started container prepare initContainers{prepare}`,
			`Normal Pulling ×1 Pulling image "fresh:1" containers{` + name + `}`,
			`Normal Pulled ×1 Successfully pulled image "fresh:1" in 1.234s (1.234s including waiting). Image size: 4242 bytes. containers{` + name + `}`,
			`Normal Created ×1 Created container: ` + name + ` containers{` + name + `}`,
			`Normal Started ×1 Started container ` + name + ` containers{` + name + `}`,
			`Normal Killing ×1 Stopping container ` + name + ` containers{` + name + `}`,
		}
		r.wantTold("a", want...)
		if len(got) != len(want) {
			t.Errorf("told %d, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
		}
		r.wantTold("n1", "Normal Starting ×1 Starting nodeagent.")
	})
}

func TestTroubleIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.world.image = func(_ context.Context, q nodeagent.ImageRequest) (nodeagent.Image, error) {
			switch q.Image {
			case "none:1":
				return nodeagent.Image{}, fmt.Errorf("image none:1: %w", schema.ErrNotFound)
			case "never:1":
				return nodeagent.Image{}, schema.ErrNotFound
			}
			return nodeagent.Image{Ref: q.Image, ID: "sha256:1"}, nil
		}
		r.begin(true)
		image := func(name, image string, policy corev1.PullPolicy) *corev1.Pod {
			p := newPod(name)
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = image, policy
			return p
		}
		missing := newPod("missing", runtimetest.Missing...)
		mount := newPod("mount")
		mount.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "gone"}}}}}
		env := newPod("env")
		env.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "gone"}}}}
		crash := newPod("crash")
		r.assign(image("none", "none:1", corev1.PullIfNotPresent), image("never", "never:1", corev1.PullNever), image("odd", "A:B:C", corev1.PullAlways), missing, mount, env, crash)
		r.after(time.Second)
		for range 3 {
			r.exit(crash.UID, 1)
			r.after(21 * time.Second)
		}
		name := crash.Spec.Containers[0].Name
		in := " containers{" + name + "}"
		r.wantTold("none", `Warning Failed ×3 Failed to pull image "none:1": image none:1: not found`+in, "Warning Failed ×3 Error: ErrImagePull"+in,
			`Normal BackOff ×3 Back-off pulling image "none:1"`+in, "Warning Failed ×3 Error: ImagePullBackOff"+in)
		r.wantTold("never", `Warning ErrImageNeverPull ×3 Container image "never:1" is not present with pull policy of Never`+in, "Warning Failed ×3 Error: ErrImageNeverPull"+in)
		r.wantTold("odd", "Warning Failed ×3 Error: InvalidImageName"+in)
		r.wantTold("missing", "Warning Failed ×4 Error: no such file"+in)
		r.wantTold("mount", `Warning FailedMount ×6 configmap "gone" not found: not found`)
		if got := r.told("env"); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "Warning Failed ×") && strings.Contains(s, "gone") }) {
			t.Errorf("of a secret that is not there: %q", got)
		}
		r.wantTold("crash", fmt.Sprintf("Warning BackOff ×2 Back-off restarting failed container %s in pod crash_default(%s)", name, crash.UID)+in,
			"Normal Started ×4 Started container "+name+in)
	})
}

func TestProbesAndMemoryAreTold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.probe = func(context.Context, string, *corev1.Probe) error {
			return errors.New("HTTP probe failed with statuscode: 500")
		}
		r.begin(true)
		p := newPod("a")
		c := &p.Spec.Containers[0]
		c.LivenessProbe = &corev1.Probe{PeriodSeconds: 10, FailureThreshold: 3}
		r.assign(p)
		r.after(25 * time.Second)
		in := " containers{" + c.Name + "}"
		r.wantTold("a", "Warning Unhealthy ×4 Liveness probe failed: HTTP probe failed with statuscode: 500"+in,
			"Normal Killing ×1 Container "+c.Name+" failed liveness probe, will be restarted"+in)

		big := newPod("big")
		big.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
		r.assign(big)
		r.after(time.Second)
		id := r.only(big.UID).ID
		r.world.mu.Lock()
		_, _, x := r.world.find(id)
		x.OOMKilled, x.Signal = true, 9
		r.world.exit(big.UID, x, 137)
		r.world.mu.Unlock()
		r.after(time.Second)
		r.wantTold("big", "Warning OOMKilling ×1 Container "+c.Name+" ran out of memory and was killed (limit 64Mi)"+in)
		// A restarted agent does not tell it once more.
		r.kill()
		r.begin(true)
		r.after(time.Second)
		r.wantTold("big", "Warning OOMKilling ×1 Container "+c.Name+" ran out of memory and was killed (limit 64Mi)"+in)
	})
}

// While the gateway is away news waits, for a while and bounded; then it is told.
func TestNewsWaitsAWhile(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		r.ctl.mu.Lock()
		r.ctl.down = schema.ErrUnavailable
		r.ctl.mu.Unlock()
		old := newPod("old")
		r.assign(old)
		r.after(14 * time.Minute)
		late := newPod("late")
		r.assign(late)
		r.after(2 * time.Minute)
		r.ctl.mu.Lock()
		r.ctl.down = nil
		r.ctl.mu.Unlock()
		r.after(30 * time.Second)
		name := late.Spec.Containers[0].Name
		r.wantTold("late", "Normal Started ×1 Started container "+name+" containers{"+name+"}")
		if got := r.told("old"); len(got) > 0 {
			t.Errorf("told after 16 minutes: %q", got)
		}
		if s := r.only(old.UID); s.State != pod.ContainerRunning {
			t.Errorf("the pod is %s", s.State)
		}
	})
}
