package nodeagent

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// lookPauseMax is the longest pause before the runtime is asked again when it
// cannot tell. Its Watch tells when it is back; this is for when it does not.
const lookPauseMax = 10 * time.Second

// lookLimit is how long the runtime may take to tell: more than a shim that
// stands still needs to be given up by containerd, less than a person's patience.
const lookLimit = 15 * time.Second

// A worker keeps one pod. Its loop owns the fields below loop; others speak to
// it through the mailbox under mu and a wake-up that carries no data.
type worker struct {
	a    *agent
	uid  types.UID
	key  schema.PodKey
	log  *slog.Logger
	wake chan struct{} // one token

	mu      sync.Mutex
	want    *corev1.Pod // shared and read-only; replaced, never changed
	remnant bool        // there is no record of it: it is removed and not reported
	mail    []func(*worker)
	gone    bool
	shown   *corev1.PodStatus // what was last reported; replaced, never changed

	// loop
	known    pod.Known
	recorded *corev1.Pod // what of want lies on disk
	reported *corev1.PodStatus
	told     *corev1.Pod      // what of want was reported
	images   map[string]Image // by container, of the attempt in known
	beside   sync.WaitGroup   // pulls, probes and hooks
	probes   map[probeKey]context.CancelFunc
	hooks    map[hookKey]context.CancelFunc
	lookFail pod.Failure
	diskFail pod.Failure
}

func newWorker(a *agent, p *corev1.Pod, last *corev1.PodStatus) *worker {
	w := &worker{
		a: a, uid: p.UID, key: keyOf(p), want: p,
		log:    a.log.With("pod", keyOf(p).String(), "uid", string(p.UID)),
		wake:   make(chan struct{}, 1),
		images: map[string]Image{},
		probes: map[probeKey]context.CancelFunc{},
		hooks:  map[hookKey]context.CancelFunc{},
	}
	w.known.HostIP = a.cfg.NodeIP
	w.known.Containers = map[string]pod.Note{}
	if last != nil {
		w.known.Previous = *last
		w.recorded, w.shown = p, last
		w.recallProbes(last)
	}
	return w
}

func (w *worker) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// post has f called by the loop, which owns what f changes.
func (w *worker) post(f func(*worker)) {
	w.mu.Lock()
	w.mail = append(w.mail, f)
	w.mu.Unlock()
	w.wakeUp()
}

// assign takes the pod as it is assigned now. Of a uid only the deletion can
// change, and a deletion is never taken back, nor made slower.
func (w *worker) assign(p *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remnant = false
	if old := w.want; old.DeletionTimestamp != nil {
		if g := p.DeletionGracePeriodSeconds; p.DeletionTimestamp == nil || g == nil ||
			old.DeletionGracePeriodSeconds != nil && *g >= *old.DeletionGracePeriodSeconds {
			return
		}
	} else if p.DeletionTimestamp == nil && equality.Semantic.DeepEqual(old.Spec, p.Spec) && equality.Semantic.DeepEqual(old.ObjectMeta, p.ObjectMeta) {
		return
	} else if !maps.Equal(old.Labels, p.Labels) || !maps.Equal(old.Annotations, p.Annotations) {
		w.mail = append(w.mail, (*worker).objectsChanged) // its volumes may show them
	}
	w.want = p
	w.wakeUp()
}

// dismissed has the pod removed though no deletionTimestamp came.
func (w *worker) dismissed(at metav1.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want = marked(w.want, at)
	w.wakeUp()
}

func (w *worker) isGone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

func (w *worker) wanted() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.want
}

func (w *worker) show(s *corev1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shown = s
}

func (w *worker) unrecorded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.remnant
}

// empty does what was posted.
func (w *worker) empty() {
	w.mu.Lock()
	mail := w.mail
	w.mail = nil
	w.mu.Unlock()
	for _, f := range mail {
		f(w)
	}
}

// run is the loop: look, ask what to do, do it, look again. It returns when the
// pod is gone or ctx is done.
func (w *worker) run(ctx context.Context) {
	beside, stop := context.WithCancel(ctx)
	defer w.beside.Wait()
	defer stop()
	for ctx.Err() == nil {
		w.empty()
		want := w.wanted()
		again, gone := w.round(ctx, beside, want)
		if gone {
			stop()
			w.end(want)
			return
		}
		w.rest(ctx, again)
	}
}

// round is one time around; again is when to come back, zero for at once.
func (w *worker) round(ctx, beside context.Context, want *corev1.Pod) (again time.Time, gone bool) {
	seen, err := w.look(ctx)
	if err != nil {
		w.reportUnseen(want, err)
		return w.lookFail.RetryAt, false
	}
	w.watchProbes(beside, want, seen)
	w.watchHooks(seen)
	recorded := w.record(want, time.Now())
	now := time.Now()
	step := pod.Next(want, seen, w.known, now)
	w.report(want, pod.Status(want, seen, w.known, now))
	if !recorded {
		// What is not on disk is not begun: a restarted agent would not know it.
		return w.diskFail.RetryAt, false
	}
	if step.Gone {
		return time.Time{}, true
	}
	if len(step.Actions) == 0 {
		again = now.Add(jittered(w.a.cfg.Relook))
		if !step.Recheck.IsZero() && step.Recheck.Before(again) {
			again = step.Recheck
		}
		return again, false
	}
	for _, act := range step.Actions {
		if ctx.Err() != nil || !w.do(ctx, beside, want, seen, act) {
			break
		}
	}
	return time.Time{}, false
}

// look asks the runtime what there is. While it cannot tell, the pod is left as
// it is.
func (w *worker) look(ctx context.Context) (pod.Seen, error) {
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	seen, err := w.a.cfg.Runtime.SeenPod(limited, w.uid)
	if err == nil {
		w.lookFail = pod.Failure{}
		seen.UID, seen.Key = w.uid, w.key
		return seen, nil
	}
	if w.lookFail.Count == 0 && ctx.Err() == nil {
		w.log.Warn("cannot see the pod; leaving it as it is", "err", err)
	}
	w.lookFail = failed(w.lookFail, "", err, time.Second/4)
	if latest := time.Now().Add(lookPauseMax); w.lookFail.RetryAt.After(latest) {
		w.lookFail.RetryAt = latest
	}
	return seen, err
}

// reportUnseen tells of a pod that could not be looked at and of which nothing was
// ever told: it is known here, and waits for the runtime.
func (w *worker) reportUnseen(want *corev1.Pod, err error) {
	if w.known.Previous.Phase != "" || w.unrecorded() {
		return
	}
	known := w.known
	known.Sandbox = pod.Failure{Count: 1, Reason: "RuntimeNotReady", Message: "the container runtime does not answer: " + schema.Text(err)}
	s := pod.Status(want, pod.Seen{UID: w.uid, Key: w.key}, known, time.Now())
	w.a.reports.put(want, s, false)
}

// record puts the pod on disk and says whether to go on. A deletion goes on
// without: it makes room.
func (w *worker) record(want *corev1.Pod, now time.Time) bool {
	if want == w.recorded || w.unrecorded() {
		return true
	}
	if w.diskFail.Count > 0 && now.Before(w.diskFail.RetryAt) {
		return want.DeletionTimestamp != nil
	}
	if err := w.a.disk.putPod(schema.Assignment{Node: w.a.cfg.Node, Pod: *want, Signature: w.a.reports.signature(w.uid)}); err != nil {
		w.log.Error("cannot record the pod on disk; not beginning it", "err", err)
		w.diskFail = failed(w.diskFail, "FailedRecord", err, time.Second)
		if latest := now.Add(jittered(troublePauseMax)); w.diskFail.RetryAt.After(latest) {
			w.diskFail.RetryAt = latest // the machine's trouble, not the pod's
		}
		w.known.Sandbox = w.diskFail
		w.warn("", "FailedRecord", "cannot keep the pod on the node's disk, and so does not begin it: "+schema.Text(err))
		return want.DeletionTimestamp != nil
	}
	w.recorded = want
	if w.diskFail.Count > 0 {
		w.diskFail, w.known.Sandbox = pod.Failure{}, pod.Failure{}
	}
	return true
}

// report tells of the pod's status when it changed.
func (w *worker) report(want *corev1.Pod, s corev1.PodStatus) {
	w.tellAll(changed(want, w.known.Previous, s))
	w.known.Previous = s
	w.show(&s)
	if w.unrecorded() || w.told == want && equality.Semantic.DeepEqual(*w.reported, s) {
		return
	}
	w.reported, w.told = &s, want
	w.a.reports.put(want, s, false)
	if err := w.a.disk.putStatus(w.uid, s); err != nil {
		w.log.Warn("cannot keep the pod's status on disk", "err", err)
	}
}

// end reports the pod gone.
func (w *worker) end(want *corev1.Pod) {
	w.mu.Lock()
	w.gone = true
	w.mu.Unlock()
	if !w.unrecorded() {
		w.a.reports.put(want, w.known.Previous, true)
	}
	w.log.Info("pod is gone")
	w.a.finished(w)
}

// hasten tries at once again what failed and can have failed because the
// runtime was away: it is back, or was away without anybody noticing.
func (w *worker) hasten() {
	now := time.Now()
	soon := func(f *pod.Failure) {
		if f.Count > 0 && f.RetryAt.After(now) {
			f.RetryAt = now
		}
	}
	soon(&w.lookFail)
	soon(&w.known.Sandbox)
	soon(&w.known.Removal)
	for name, note := range w.known.Containers {
		soon(&note.Stop)
		if note.Start.Reason == pod.ReasonCreate {
			soon(&note.Start)
		}
		w.known.Containers[name] = note
	}
}

// rest waits for a wake-up, or until again.
func (w *worker) rest(ctx context.Context, again time.Time) {
	if again.IsZero() {
		return
	}
	t := time.NewTimer(time.Until(again))
	defer t.Stop()
	select {
	case <-w.wake:
	case <-t.C:
	case <-ctx.Done():
	}
}
