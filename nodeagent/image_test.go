package nodeagent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// CollectImages implements nodeagent.ImageCollector.
func (h *handle) CollectImages(_ context.Context, keep []string) (nodeagent.ImageCollection, error) {
	h.mu.Lock()
	collect := h.collect
	h.mu.Unlock()
	if collect == nil {
		return nodeagent.ImageCollection{}, nil
	}
	return collect(keep)
}

func TestBytes(t *testing.T) {
	for n, want := range map[nodeagent.Bytes]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 12_897_485: "12.3 MiB", 40 << 20: "40 MiB", 1<<20 - 1: "1 MiB", 1 << 40: "1 TiB", 1<<63 - 1: "8 EiB",
	} {
		if got := n.String(); got != want {
			t.Errorf("%d: %s, want %s", int64(n), got, want)
		}
	}
	for want, p := range map[string]nodeagent.PullProgress{
		"pulling: waiting for other images": {Waiting: true},
		"pulling: asking the registry":      {},
		"pulling: 12.3 MiB of 40 MiB":       {Have: 12_897_485, Total: 40 << 20},
		"pulling: unpacking 40 MiB":         {Have: 40 << 20, Total: 40 << 20},
	} {
		if p.String() != want {
			t.Errorf("%+v: %s, want %s", p, p, want)
		}
	}
}

func (r *rig) status(p *corev1.Pod) corev1.PodStatus {
	r.ctl.mu.Lock()
	defer r.ctl.mu.Unlock()
	return r.ctl.reports[p.UID].Pod.Status
}

// A pull that goes on is seen in the status, no more often than it is told of.
func TestProgressIsReported(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		end := make(chan struct{})
		r.world.image = func(_ context.Context, q nodeagent.ImageRequest) (nodeagent.Image, error) {
			for have := range 5 {
				q.Progress(nodeagent.PullProgress{Have: nodeagent.Bytes(have+1) << 20, Total: 5 << 20})
				time.Sleep(time.Second)
			}
			<-end
			return nodeagent.Image{Ref: q.Image, ID: "sha256:1"}, nil
		}
		r.begin(true)
		p := newPod("a")
		r.assign(p)
		r.after(500 * time.Millisecond)
		r.ctl.mu.Lock()
		before := r.ctl.total
		r.ctl.mu.Unlock()
		for have := 1; have < 5; have++ {
			s := r.status(p)
			want := fmt.Sprintf("pulling: %d MiB of 5 MiB", have)
			if w := s.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ContainerCreating" || w.Message != want || !strings.HasSuffix(s.Message, want) {
				t.Errorf("%+v %q, want %s", s.ContainerStatuses[0].State, s.Message, want)
			}
			r.after(time.Second)
		}
		r.ctl.mu.Lock()
		told := r.ctl.total - before
		r.ctl.mu.Unlock()
		if told > 5 {
			t.Errorf("%d reports within four seconds", told)
		}
		close(end)
		r.after(time.Second)
		if s := r.status(p); s.Phase != corev1.PodRunning || s.Message != "" {
			t.Errorf("%+v", s)
		}
	})
}

type busy struct{ error }

func (busy) RetryAfter() time.Duration { return 2 * time.Minute }

// A registry that asks to be left alone is, by each pod; missing secrets are told of.
func TestRetryAfterIsHeeded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var tries atomic.Int32
		r.world.image = func(_ context.Context, q nodeagent.ImageRequest) (nodeagent.Image, error) {
			if tries.Add(1) == 1 {
				return nodeagent.Image{}, fmt.Errorf("image: %w", busy{schema.ErrUnavailable})
			}
			return nodeagent.Image{Ref: q.Image, ID: "sha256:1"}, nil
		}
		r.begin(true)
		p := newPod("a")
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "robot"}, {Name: "other"}}
		r.assign(p)
		r.after(119 * time.Second)
		if n := tries.Load(); n != 1 {
			t.Errorf("%d tries", n)
		}
		r.after(30 * time.Second)
		if n := tries.Load(); n != 2 || r.status(p).Phase != corev1.PodRunning {
			t.Errorf("%d tries, %+v", n, r.status(p))
		}
		r.wantTold("a", "Warning FailedToRetrieveImagePullSecret ×2 Unable to retrieve some image pull secrets (robot, other); attempting to pull the image may not succeed.")
	})
}

// A disk that images fill is told of, as an Event and as a condition of the node,
// until there is room again; and what pods use is asked to be kept.
func TestFullImageDiskIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var mu sync.Mutex // over kept, state and err
		var kept []string
		full := nodeagent.ImageCollection{Capacity: 1000, Used: 900, High: 85, Wanted: 100, Freed: 7}
		state, err := full, error(nil)
		r.world.collect = func(keep []string) (nodeagent.ImageCollection, error) {
			mu.Lock()
			defer mu.Unlock()
			kept = keep
			return state, err
		}
		r.begin(true)
		p := newPod("a")
		p.Spec.InitContainers = []corev1.Container{{Name: "prepare", Image: "init:1", Command: []string{"x"}}}
		p.Spec.Containers[0].Image = "app:1"
		r.assign(p)
		r.after(3 * time.Minute)
		mu.Lock()
		if !slices.Equal(kept, []string{"app:1", "init:1"}) {
			t.Errorf("kept %v", kept)
		}
		mu.Unlock()
		if c := r.diskCondition(); c.Status != corev1.ConditionTrue || c.Reason != "FreeDiskSpaceFailed" || !strings.Contains(c.Message, "90 %") {
			t.Errorf("%+v", c)
		}
		mu.Lock()
		state = nodeagent.ImageCollection{Capacity: 1000, Used: 100, High: 85}
		mu.Unlock()
		r.after(9 * time.Minute) // a collection, and the time there must be room for
		if c := r.diskCondition(); c.Status != corev1.ConditionFalse {
			t.Errorf("%+v", c)
		}
		mu.Lock()
		err = errors.New("it does not answer")
		mu.Unlock()
		r.after(4 * time.Minute)
		told := strings.Join(r.told("n1"), "\n")
		for _, want := range []string{
			"Warning FreeDiskSpaceFailed ×2 Failed to garbage collect required amount of images. Attempted to free 100 bytes, but only found 7 bytes eligible to free.",
			"ImageGCFailed ×", "it does not answer",
		} {
			if !strings.Contains(told, want) {
				t.Errorf("nobody was told %q but\n%s", want, told)
			}
		}
	})
}

// diskCondition is the node's DiskPressure as last reported.
func (r *rig) diskCondition() (c corev1.NodeCondition) {
	r.ctl.mu.Lock()
	defer r.ctl.mu.Unlock()
	for _, x := range r.ctl.nodes[len(r.ctl.nodes)-1].Status.Conditions {
		if x.Type == corev1.NodeDiskPressure {
			c = x
		}
	}
	c.LastHeartbeatTime = metav1.Time{}
	return c
}
