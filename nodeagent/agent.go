package nodeagent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// An agent is one run of the node agent.
type agent struct {
	cfg      Config
	log      *slog.Logger
	disk     *disk
	objects  *objects
	tokens   *tokens
	reports  *reporter
	news     *teller
	starts   *slots
	removals *slots
	probe    probeFunc
	ctx      context.Context // of run; set before any goroutine starts
	workers  sync.WaitGroup
	synced   chan struct{} // holds a token when a whole set came: look for remnants

	replacing sync.Mutex // of objects; taken after mu

	mu      sync.Mutex
	pods    map[types.UID]*worker
	waiting map[schema.PodKey]*schema.Assignment // successor of a pod of that name that is not gone yet
	named   map[types.UID]bool                   // by the last whole set, and what came since
	unnamed map[schema.ObjectKey]bool            // objects that the last whole set did not name, held for the pods that use them

	storage   storage
	diskShort pressure         // for the heartbeat
	imageDisk *ImageCollection // as last looked at; nil: not yet
}

func newAgent(cfg Config) (*agent, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	d, err := openDisk(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	a := &agent{
		cfg: cfg, log: cfg.Logger, disk: d,
		objects:  newObjects(),
		tokens:   newTokens(cfg.Link),
		reports:  newReporter(cfg.Node, cfg.Logger),
		news:     newTeller(cfg.Node, cfg.Logger),
		starts:   newSlots(cfg.StartsAtOnce),
		removals: newSlots(2 * cfg.StartsAtOnce),
		synced:   make(chan struct{}, 1),
		pods:     map[types.UID]*worker{},
		waiting:  map[schema.PodKey]*schema.Assignment{},
		named:    map[types.UID]bool{},
	}
	a.probe = newProber(cfg.Runtime)
	a.reports.acked = a.acknowledged
	return a, nil
}

// adopt takes up what an earlier run was assigned, from disk.
func (a *agent) adopt() error {
	kept, err := a.disk.load(a.log)
	if err != nil {
		return err
	}
	a.objects.replace(kept.objects.ConfigMaps, kept.objects.Secrets, nil)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range kept.pods {
		a.start(&r.Assignment, r.status)
	}
	if len(kept.pods) > 0 {
		a.log.Info("took up the last assignments", "pods", len(kept.pods))
	}
	return nil
}

// Whole takes everything assigned to the node. What is absent is left alone,
// but that a pod which is gone, and known to be, needs no more record.
func (a *agent) Whole(s Assigned) {
	a.takeObjects(s, nil, true)
	a.mu.Lock()
	a.named = map[types.UID]bool{}
	for i := range s.Assignments {
		a.take(&s.Assignments[i])
	}
	for k, next := range a.waiting {
		if !a.named[next.Pod.UID] {
			delete(a.waiting, k) // nothing of it is here that could be lost
		}
	}
	for _, w := range a.pods {
		if !a.named[w.uid] && w.isGone() && a.reports.settled(w.uid) {
			a.forget(w)
		}
	}
	held := slices.Collect(maps.Keys(a.pods))
	a.mu.Unlock()
	a.reports.all(held)
	a.hastenTokens()
	select {
	case a.synced <- struct{}{}:
	default:
	}
}

// Delta takes what changed. An explicit removal of a pod that is not gone is an
// order to remove it.
func (a *agent) Delta(s Assigned, remove []schema.ObjectKey) {
	a.takeObjects(s, remove, false)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range remove {
		if k.Kind == schema.Pods {
			a.removed(schema.PodKey{Namespace: k.Namespace, Name: k.Name})
		}
	}
	for i := range s.Assignments {
		a.take(&s.Assignments[i])
	}
}

// take gives a pod as assigned to its worker. Needs a.mu.
func (a *agent) take(order *schema.Assignment) {
	p := &order.Pod
	a.named[p.UID] = true
	if w := a.pods[p.UID]; w != nil {
		a.reports.sign(p.UID, order.Signature)
		w.assign(p)
		return
	}
	if old := a.holder(keyOf(p)); old != nil {
		// One name, one pod: the new one begins when the old one is gone.
		a.waiting[keyOf(p)] = order
		a.dismiss(old)
		return
	}
	a.start(order, nil)
}

// dismiss has a pod removed that is no longer assigned. Needs a.mu.
func (a *agent) dismiss(w *worker) {
	delete(a.named, w.uid)
	switch {
	case !w.isGone():
		w.dismissed(metav1.Now())
	case a.reports.settled(w.uid):
		a.forget(w)
	}
}

// removed obeys an explicit removal. Needs a.mu.
func (a *agent) removed(k schema.PodKey) {
	delete(a.waiting, k)
	w := a.holder(k)
	switch {
	case w == nil:
	case w.isGone():
		a.forget(w)
	default:
		a.log.Warn("assignment removed while the pod is here: removing the pod", "pod", k)
		a.dismiss(w)
	}
}

// holder is the worker of the pod that has this name; nil when there is none.
func (a *agent) holder(k schema.PodKey) *worker {
	for _, w := range a.pods {
		if w.key == k {
			return w
		}
	}
	return nil
}

// start begins a pod's worker. Needs a.mu.
func (a *agent) start(order *schema.Assignment, last *corev1.PodStatus) {
	p := &order.Pod
	a.reports.sign(p.UID, order.Signature)
	w := newWorker(a, p, last)
	a.pods[p.UID] = w
	a.workers.Go(func() { w.run(a.ctx) })
}

// finished is told by a worker whose pod is gone.
func (a *agent) finished(w *worker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.remnant {
		a.forget(w)
		return
	}
	if a.waiting[w.key] != nil && a.reports.settled(w.uid) {
		a.forget(w)
	}
}

// acknowledged is told by the reporter when the gateway has stored that a pod is gone.
func (a *agent) acknowledged(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.pods[uid]; w != nil && w.isGone() && !a.named[uid] {
		a.forget(w)
	}
}

// forget drops what is kept of a pod that is gone, and lets its successor
// begin. Needs a.mu.
func (a *agent) forget(w *worker) {
	delete(a.pods, w.uid)
	delete(a.named, w.uid)
	a.reports.drop(w.uid)
	a.tokens.drop(w.uid)
	if err := a.disk.forgetPod(w.uid); err != nil {
		a.log.Error("drop the record of a pod that is gone", "pod", w.key, "err", err)
	}
	if next := a.waiting[w.key]; next != nil {
		delete(a.waiting, w.key)
		a.start(next, nil)
	}
	a.dropUnnamed()
}

func keyOf(p *corev1.Pod) schema.PodKey {
	return schema.PodKey{Namespace: p.Namespace, Name: p.Name}
}

// marked is p with a deletionTimestamp.
func marked(p *corev1.Pod, at metav1.Time) *corev1.Pod {
	p = p.DeepCopy()
	if p.DeletionTimestamp == nil {
		p.DeletionTimestamp = &at
		p.DeletionGracePeriodSeconds = p.Spec.TerminationGracePeriodSeconds
	}
	return p
}
