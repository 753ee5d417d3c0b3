package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

const (
	callLimit     = 2 * time.Minute  // of one call of the runtime, but for pulls
	stopLimit     = 15 * time.Second // of one call that ends or removes something
	pullLimit     = 30 * time.Minute // of one pull
	shutdownGrace = 5 * time.Second  // for a call under way when the agent stops
	// troublePauseMax is the longest pause before what failed for the machine's
	// sake, not the pod's, is tried again: its disk was full, say.
	troublePauseMax = 10 * time.Second
)

// call is the context of one call of the runtime. A call under way is not cut
// off by the agent's stop, but gets a little time: half-made things cost the
// next run more.
func call(ctx context.Context) (context.Context, context.CancelFunc) {
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	stop := context.AfterFunc(ctx, func() {
		t := time.NewTimer(shutdownGrace)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-c.Done():
		}
	})
	return c, func() { stop(); cancel() }
}

// failed is f after err, tried again after first, twice that, ….
func failed(f pod.Failure, reason string, err error, first time.Duration) pod.Failure {
	return f.Again(reason, schema.Text(err), time.Now(), first, rand.Float64())
}

// do does one action and says whether to go on with the next of the step. A
// failure is kept in known, where status shows it and Next waits for it.
func (w *worker) do(ctx, beside context.Context, want *corev1.Pod, seen pod.Seen, act pod.Action) bool {
	if p, ok := act.(pod.PullImage); ok {
		w.pull(beside, want, p)
		return true
	}
	ctx, cancel := call(ctx)
	defer cancel()
	rt := w.a.cfg.Runtime
	switch act := act.(type) {
	case pod.CreateSandbox:
		_, err := rt.CreateSandbox(ctx, want)
		return w.note(&w.known.Sandbox, "FailedCreatePodSandBox", act, err)
	case pod.SetupVolumes:
		err := w.a.cfg.Volumes.Setup(ctx, want, podSources{w.a.objects, w.a.tokens})
		if errors.Is(err, ErrOutdated) {
			w.warn("", "FailedMount", schema.Text(err))
			err = nil
		}
		w.known.VolumesReady = err == nil
		return w.note(&w.known.Volumes, "FailedMount", act, err)
	case pod.Start:
		return w.startContainer(ctx, want, seen, act)
	case pod.PostStart:
		return w.postStart(beside, want, seen, act)
	case pod.PreStop:
		w.tellStop(want, seen, pod.Signal{Container: act.Container, ID: act.ID})
		w.preStop(ctx, beside, want, seen, act)
		return true
	case pod.Keep:
		w.noteStop(act.Container, act, rt.Mark(ctx, act.ID, act.Mark, act.At))
		return true
	case pod.Signal:
		ctx, cancel := context.WithTimeout(ctx, stopLimit)
		defer cancel()
		w.tellStop(want, seen, act)
		w.signal(ctx, want, act)
		return true
	case pod.Remove:
		release, err := w.a.removals.take(ctx)
		if err != nil {
			return false
		}
		defer release()
		ctx, cancel := context.WithTimeout(ctx, stopLimit)
		defer cancel()
		err = rt.Remove(ctx, act.ID, true)
		return w.note(&w.known.Removal, "FailedRemove", act, err)
	case pod.RemoveVolumes:
		err := w.a.cfg.Volumes.Remove(ctx, w.uid)
		w.known.VolumesRemoved = err == nil
		return w.note(&w.known.Removal, "FailedUnmount", act, err)
	case pod.RemoveSandbox:
		release, err := w.a.removals.take(ctx)
		if err != nil {
			return false
		}
		defer release()
		ctx, cancel := context.WithTimeout(ctx, stopLimit)
		defer cancel()
		err = rt.RemoveSandbox(ctx, w.uid)
		w.known.SandboxRemoved = err == nil
		return w.note(&w.known.Removal, "FailedKillPod", act, err)
	default:
		panic(fmt.Sprintf("package pod names an action that the agent does not know: %T", act))
	}
}

// note keeps or clears a failure, and says whether there was none.
func (w *worker) note(f *pod.Failure, reason string, act pod.Action, err error) bool {
	if err == nil || gone(reason, err) {
		if f.Count > 0 {
			w.log.Info("succeeded after failures", "action", act.String(), "failures", f.Count)
		}
		*f = pod.Failure{}
		return true
	}
	*f = failed(*f, reason, err, time.Second)
	if latest := time.Now().Add(jittered(troublePauseMax)); errors.Is(err, schema.ErrUnavailable) && f.RetryAt.After(latest) {
		f.RetryAt = latest
	}
	w.tellFailure(act, reason, err)
	w.log.Warn("action failed", "action", act.String(), "failures", f.Count, "retry", f.RetryAt, "err", err)
	return false
}

// signal sends a container a signal. That it fails keeps no other container from
// being sent its own.
func (w *worker) signal(ctx context.Context, want *corev1.Pod, act pod.Signal) {
	now, stop := time.Now(), ""
	if act.Kill {
		stop = "KILL"
	} else if c := container(want, act.Container); c != nil && c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		stop = string(*c.Lifecycle.StopSignal)
	}
	w.endHook(hookKey{act.ID, false})
	w.endHook(hookKey{act.ID, true})
	err := w.a.cfg.Runtime.Signal(ctx, act.ID, stop, now)
	switch {
	case err != nil: // noteStop says when it is tried again
	case act.Kill:
		note := w.known.Containers[act.Container]
		note.KilledID, note.KilledAt = act.ID, now
		w.known.Containers[act.Container] = note
	default:
		w.setHooks(act.Container, act.ID, func(h *pod.Hooks) { h.Signalled = now })
	}
	w.log.Debug("signalled", "container", act.Container, "signal", stop)
	w.noteStop(act.Container, act, err)
}

// noteStop notes how it went to do something for a container's stop, and says
// whether it went well.
func (w *worker) noteStop(container string, act pod.Action, err error) bool {
	if errors.Is(err, schema.ErrNotFound) {
		err = nil // it exited first: the next look shows it
	}
	note := w.known.Containers[container]
	done := w.note(&note.Stop, "FailedKill", act, err)
	w.known.Containers[container] = note
	return done
}

// pull asks for an image beside the loop, so that neither a slow registry keeps
// a pod from being deleted, nor one image the other containers.
func (w *worker) pull(ctx context.Context, want *corev1.Pod, act pod.PullImage) {
	c := container(want, act.Container)
	note := w.known.Containers[act.Container]
	note.Image.Attempt, note.Image.Ready, note.Image.Pulling = act.Attempt, false, true
	w.known.Containers[act.Container] = note
	var asked atomic.Bool
	r := ImageRequest{Image: c.Image, Policy: c.ImagePullPolicy, Auth: w.a.objects.pullSecrets(want), Pulling: func() {
		asked.Store(true)
		w.say(act.Container, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	}, Progress: func(p PullProgress) {
		w.post(func(w *worker) { w.pulling(act, p) })
	}}
	w.tellMissingSecrets(want)
	w.beside.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, pullLimit)
		defer cancel()
		img, err := w.image(ctx, r)
		if err == nil {
			err = mayRun(want, c, img)
		}
		w.post(func(w *worker) { w.pulled(act, r, img, asked.Load(), err) })
	})
}

// errConfig marks what the container's own configuration forbids.
var errConfig = errors.New("container configuration")

func (w *worker) image(ctx context.Context, r ImageRequest) (Image, error) {
	if _, err := reference.ParseNormalizedNamed(r.Image); err != nil {
		return Image{}, fmt.Errorf("%w: %w", errImageName, err)
	}
	return w.a.cfg.Runtime.Image(ctx, r)
}

var errImageName = errors.New("invalid image name")

// pulled keeps how a pull ended.
func (w *worker) pulled(act pod.PullImage, r ImageRequest, img Image, asked bool, err error) {
	note := w.known.Containers[act.Container]
	note.Image.Pulling, note.Image.Progress = false, ""
	switch {
	case err == nil:
		note.Image.Ready, note.Image.Failure = true, pod.Failure{}
		w.images[act.Container] = img
		w.tellPulled(act.Container, r.Image, img, asked)
		if img.Pulled {
			w.log.Info("pulled image", "container", act.Container, "image", r.Image, "took", img.Took, "bytes", img.Bytes)
		}
	case errors.Is(err, context.Canceled):
	default:
		reason := imageReason(r, err)
		note.Image.Failure = notBefore(failed(note.Image.Failure, reason, err, pod.FirstPullPause), err)
		if latest := time.Now().Add(jittered(troublePauseMax)); !asked && errors.Is(err, schema.ErrUnavailable) && note.Image.Failure.RetryAt.After(latest) {
			note.Image.Failure.RetryAt = latest // no registry is spared by waiting for longer
		}
		w.tellNoImage(act.Container, r, reason, err)
		w.log.Warn("cannot have image", "container", act.Container, "image", r.Image, "retry", note.Image.Failure.RetryAt, "err", err)
	}
	w.known.Containers[act.Container] = note
}

func imageReason(r ImageRequest, err error) string {
	switch {
	case errors.Is(err, errImageName):
		return pod.ReasonInvalidImage
	case errors.Is(err, errConfig):
		return pod.ReasonConfig
	case r.Policy == corev1.PullNever && errors.Is(err, schema.ErrNotFound):
		return pod.ReasonNeverPull
	default:
		return pod.ReasonPull
	}
}

// mayRun refuses an image that would run as root where the pod forbids it.
func mayRun(p *corev1.Pod, c *corev1.Container, img Image) error {
	user, nonRoot := effectiveUser(p, c)
	switch {
	case !nonRoot:
		return nil
	case user != nil && *user == 0:
		return fmt.Errorf("%w: runAsUser is 0, but runAsNonRoot is set: %w", errConfig, schema.ErrRefused)
	case user != nil:
		return nil
	case rootUser(img.User):
		return fmt.Errorf("%w: runAsNonRoot is set and the image runs as root: %w", errConfig, schema.ErrRefused)
	case !numericUser(img.User):
		return fmt.Errorf("%w: runAsNonRoot is set and the image has the non-numeric user %q: set runAsUser: %w", errConfig, img.User, schema.ErrRefused)
	}
	return nil
}

// startContainer resolves what the container is to be given and starts it.
func (w *worker) startContainer(ctx context.Context, want *corev1.Pod, seen pod.Seen, act pod.Start) bool {
	r, err := w.startRequest(want, seen, act)
	note := w.known.Containers[act.Container]
	if err != nil {
		note.Start = failed(note.Start, pod.ReasonConfig, err, pod.FirstPullPause)
		w.known.Containers[act.Container] = note
		w.tellFailure(act, pod.ReasonConfig, err)
		w.log.Warn("cannot configure container", "container", act.Container, "retry", note.Start.RetryAt, "err", err)
		return true
	}
	release, err := w.a.starts.take(ctx)
	if err != nil {
		return false
	}
	defer release()
	c, err := w.a.cfg.Runtime.Start(ctx, *r)
	err = masked(err, r.Sealed)
	note.Image = pod.ImageNote{} // asked for again before the next attempt: it may have been removed
	if w.note(&note.Start, pod.ReasonCreate, act, err) {
		note.Stop = pod.Failure{} // it was the one's before
		w.tellStarted(act.Container, c)
		w.log.Info("started container", "container", act.Container, "attempt", act.Attempt, "id", c.ID, "startError", c.StartError)
	}
	w.known.Containers[act.Container] = note
	return true
}

func (w *worker) startRequest(want *corev1.Pod, seen pod.Seen, act pod.Start) (*StartRequest, error) {
	c := container(want, act.Container).DeepCopy()
	e := environment{pod: want, container: c, objects: w.a.objects,
		podIP: seen.Sandbox.IP, hostIP: w.known.HostIP, node: w.a.capacity(), api: w.a.cfg.apiFor(want)}
	var sealed []string
	if usesVariables(c) {
		sealed = e.sealedValues()
	}
	env, err := resolveEnv(e)
	if err != nil {
		return nil, masked(err, sealed)
	}
	if err := expandArgs(c, env); err != nil {
		return nil, masked(err, sealed)
	}
	mounts, err := w.a.cfg.Volumes.Mounts(want, c)
	if err != nil {
		return nil, masked(err, sealed)
	}
	list := make([]string, len(env))
	for i, v := range env {
		list[i] = v.Name + "=" + v.Value
	}
	return &StartRequest{
		Pod: want, Container: c, Attempt: act.Attempt, Backoff: act.Backoff,
		Init:  slices.ContainsFunc(want.Spec.InitContainers, func(x corev1.Container) bool { return x.Name == c.Name }),
		Image: w.images[act.Container], Env: list, Mounts: mounts, SandboxIP: seen.Sandbox.IP, Sealed: sealed,
	}, nil
}

// container is the container of that name in the spec; nil when there is none.
func container(p *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
