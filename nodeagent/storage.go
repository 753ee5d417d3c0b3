package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/diskuse"
	"github.com/pawl-project/pawl/nodeagent/pod"
)

const (
	// storageEvery is the time between looks at what pods with limits have on the
	// disk, as the kubelet has it.
	storageEvery = 10 * time.Second
	// storageSlow is that of pods without: it is only told.
	storageSlow = 2 * time.Minute
)

// A Place is a directory that a pod writes to.
type Place struct {
	UID       types.UID
	Container string // whose it is: its writable layer, its logs; "": a volume's
	Volume    string // an emptyDir on disk; "": a container's
	Path      string
}

// RuntimePlaces is what a Runtime may have besides, to say where containers
// write to.
type RuntimePlaces interface {
	// Places lists the directories of all containers there are, dead ones too.
	Places(ctx context.Context) ([]Place, error)
}

// VolumePlaces is what Volumes may have besides.
type VolumePlaces interface {
	// Places lists the emptyDirs on disk of a pod.
	Places(p *corev1.Pod) []Place
}

// storage is what is known of pods' use of the disk. a.mu guards it.
type storage struct {
	total  map[types.UID]uint64 // bytes; of pods that were measured
	looked map[types.UID]time.Time
}

// watchStorage measures what pods have on the disk, and evicts those that have
// more than they may, until ctx is done.
func (a *agent) watchStorage(ctx context.Context) error {
	runtime, ok := a.cfg.Runtime.(RuntimePlaces)
	volumes, too := a.cfg.Volumes.(VolumePlaces)
	if !ok || !too {
		return nil
	}
	failures := 0
	for pause(ctx, storageEvery); ctx.Err() == nil; pause(ctx, storageEvery) {
		err := a.lookAtStorage(ctx, runtime, volumes)
		if err == nil {
			failures = 0
			continue
		}
		if failures++; failures == 2 && ctx.Err() == nil {
			a.log.Warn("cannot measure what pods have on the disk; trying on", "err", err)
		}
	}
	return ctx.Err()
}

// lookAtStorage measures every pod that it is time for, one after the other.
func (a *agent) lookAtStorage(ctx context.Context, runtime RuntimePlaces, volumes VolumePlaces) error {
	limited, cancel := context.WithTimeout(ctx, usageLimit)
	all, err := runtime.Places(limited)
	cancel()
	if err != nil {
		return err
	}
	places := map[types.UID][]Place{}
	for _, p := range all {
		places[p.UID] = append(places[p.UID], p)
	}
	var faults []error
	for _, w := range a.toMeasure(time.Now()) {
		want := w.wanted()
		use, err := measurePlaces(ctx, append(places[w.uid], volumes.Places(want)...))
		if err != nil {
			faults = append(faults, fmt.Errorf("pod %s: %w", w.key, err))
			if !errors.Is(err, diskuse.ErrDeep) { // what was counted is there, at least
				continue
			}
		}
		a.measured(w.uid, use.Total())
		if why := pod.Eviction(want, use); why != "" {
			w.post(func(w *worker) { w.evict(why) })
		}
	}
	return errors.Join(faults...)
}

// toMeasure lists the workers of the pods that it is time to measure, and
// forgets what is known of pods that are gone.
func (a *agent) toMeasure(now time.Time) (due []*worker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.storage.total == nil {
		a.storage = storage{map[types.UID]uint64{}, map[types.UID]time.Time{}}
	}
	for uid := range a.storage.looked {
		if a.pods[uid] == nil {
			delete(a.storage.looked, uid)
			delete(a.storage.total, uid)
		}
	}
	for uid, w := range a.pods {
		last, known := a.storage.looked[uid]
		if w.isGone() || w.isOver() || known && now.Sub(last) < storageSlow && !pod.LimitsStorage(w.wanted()) {
			continue
		}
		a.storage.looked[uid] = now
		due = append(due, w)
	}
	return due
}

func (a *agent) measured(uid types.UID, total uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.storage.total[uid] = total
}

// stored is what a pod has on the disk; nil: not measured yet.
func (a *agent) stored(uid types.UID) *uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n, ok := a.storage.total[uid]; ok {
		return &n
	}
	return nil
}

// measurePlaces adds up what is in the places.
func measurePlaces(ctx context.Context, places []Place) (pod.StorageUse, error) {
	use := pod.StorageUse{Containers: map[string]uint64{}, Volumes: map[string]uint64{}}
	var faults []error
	for _, p := range places {
		u, err := diskuse.Of(ctx, p.Path)
		if err != nil {
			faults = append(faults, err)
		}
		if p.Volume != "" {
			use.Volumes[p.Volume] += u.Bytes
		} else {
			use.Containers[p.Container] += u.Bytes
		}
	}
	return use, errors.Join(faults...)
}

// isOver says whether the pod has ended or is on its way out: its use of the
// disk decides nothing any more.
func (w *worker) isOver() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.want.DeletionTimestamp != nil || w.shown != nil && (w.shown.Phase == corev1.PodSucceeded || w.shown.Phase == corev1.PodFailed)
}

// evict has the pod taken down, for a reason that is told. It is for the loop.
func (w *worker) evict(why string) {
	phase := w.known.Previous.Phase
	if w.known.Evicted != "" || phase == corev1.PodSucceeded || phase == corev1.PodFailed {
		return
	}
	w.known.Evicted = why
	w.log.Warn("evicting the pod", "why", why)
	w.warn("", pod.ReasonEvicted, why)
}
