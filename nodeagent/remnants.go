package nodeagent

import (
	"context"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// podUID is the form of every pod's uid. What has another is not ours to remove.
var podUID = regexp.MustCompile(`^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$`)

// sweepRemnants looks for remnants after every whole set. What holds a pod that
// neither a record nor the set names has no spec any more, so it can be neither
// rebuilt nor reported; it is stopped gracefully and removed.
func (a *agent) sweepRemnants(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.synced:
		}
		for retry := reportRetry; ctx.Err() == nil; retry = min(2*retry, reportRetryMax) {
			err := a.sweep(ctx)
			if err == nil {
				break
			}
			a.log.Warn("cannot look for remnants", "retry", retry, "err", err)
			pause(ctx, retry)
		}
	}
}

func (a *agent) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	seen, err := a.cfg.Runtime.Seen(ctx)
	if err != nil {
		return err
	}
	held, err := a.cfg.Volumes.Held(ctx)
	if err != nil {
		return err
	}
	found := map[types.UID]schema.PodKey{}
	for _, uid := range held {
		found[uid] = schema.PodKey{}
	}
	for _, s := range seen {
		found[s.UID] = s.Key
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for uid, key := range found {
		if !podUID.MatchString(string(uid)) {
			a.log.Error("something that is no pod lies among what the runtime or the volumes hold; leaving it alone", "name", uid)
			continue
		}
		if a.pods[uid] == nil && !a.expects(uid) {
			a.log.Warn("removing the remnant of a pod of which there is no record", "pod", key, "uid", uid)
			a.startRemnant(uid, key)
		}
	}
	return nil
}

// expects says whether a pod of that uid waits for its name to be free. Needs a.mu.
func (a *agent) expects(uid types.UID) bool {
	for _, next := range a.waiting {
		if next.Pod.UID == uid {
			return true
		}
	}
	return false
}

// startRemnant begins the removal of what is left of a pod. Needs a.mu.
func (a *agent) startRemnant(uid types.UID, key schema.PodKey) {
	w := newWorker(a, marked(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		UID: uid, Namespace: key.Namespace, Name: key.Name,
	}}, metav1.Now()), nil)
	w.remnant = true
	a.pods[uid] = w
	a.workers.Go(func() { w.run(a.ctx) })
}
