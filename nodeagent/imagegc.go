package nodeagent

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

const (
	collectEvery = time.Minute      // between looks at the images' disk; a look costs one system call
	collectLimit = 10 * time.Minute // for one collection
)

// collectImages keeps images from filling the disk, until ctx is done.
func (a *agent) collectImages(ctx context.Context) error {
	collector, ok := a.cfg.Runtime.(ImageCollector)
	if !ok {
		return nil
	}
	failures := 0
	for pause(ctx, collectEvery); ctx.Err() == nil; pause(ctx, collectEvery) {
		c, err := a.collect(ctx, collector)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			failures = 0
			a.collected(c)
			continue
		}
		if failures++; failures > 1 { // once may be a runtime that is only just being started
			a.tellNode(corev1.EventTypeWarning, "ImageGCFailed", schema.Text(err))
			a.log.Warn("cannot collect images", "failures", failures, "err", err)
		}
	}
	return ctx.Err()
}

func (a *agent) collect(ctx context.Context, collector ImageCollector) (ImageCollection, error) {
	ctx, cancel := context.WithTimeout(ctx, collectLimit)
	defer cancel()
	return collector.CollectImages(ctx, a.imagesWanted())
}

// collected tells what came of a collection.
func (a *agent) collected(c ImageCollection) {
	if c.Wanted > 0 {
		a.log.Info("collected images", "removed", c.Removed, "freed", c.Freed, "wanted", c.Wanted)
	}
	if c.Short() {
		a.tellNode(corev1.EventTypeWarning, "FreeDiskSpaceFailed", fmt.Sprintf(
			"Failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes eligible to free.", int64(c.Wanted), int64(c.Freed)))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.imageDisk = &c
}

// imagesWanted lists the images of all pods of the node, whether they run, wait
// for one, or are on their way out.
func (a *agent) imagesWanted() (all []string) {
	a.mu.Lock()
	pods := make([]*corev1.Pod, 0, len(a.pods)+len(a.waiting))
	for _, w := range a.pods {
		pods = append(pods, w.wanted())
	}
	for _, next := range a.waiting {
		pods = append(pods, &next.Pod)
	}
	a.mu.Unlock()
	for _, p := range pods {
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			all = append(all, c.Image)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// diskCondition says whether images leave room on their disk; nothing before it
// was looked at.
func (a *agent) diskCondition(now metav1.Time) (corev1.NodeCondition, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.imageDisk == nil {
		return corev1.NodeCondition{}, false
	}
	c := corev1.NodeCondition{
		Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "AgentHasNoDiskPressure",
		Message: "the disk with the images has room", LastHeartbeatTime: now, LastTransitionTime: now,
	}
	if d := a.imageDisk; d.Full() && d.Short() {
		c.Status, c.Reason = corev1.ConditionTrue, "FreeDiskSpaceFailed"
		c.Message = fmt.Sprintf("the disk with the images is full to %d %%, and removing unused images does not help", d.Used*100/d.Capacity)
	}
	return c, true
}
