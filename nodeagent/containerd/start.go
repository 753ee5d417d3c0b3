package containerd

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerdtypes "github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

const (
	runtimeName = "io.containerd.runc.v2"
	// startErrorCode is the exit code of a container that could not be started,
	// as Kubernetes shows it.
	startErrorCode = 128
	// startWithinLimit bounds one start: a shim that hangs must not hold its pod
	// for ever.
	startWithinLimit = 2 * time.Minute
	cleanupWithin    = 20 * time.Second
)

// Start creates and starts one attempt of one container. A call that finds the
// attempt there, running or ended, returns it as it is.
func (r *Runtime) Start(ctx context.Context, q nodeagent.StartRequest) (pod.Container, error) {
	if err := checkUID(q.Pod.UID); err != nil {
		return pod.Container{}, err
	}
	ctx, cancel := within(ctx, startWithinLimit)
	defer cancel()
	if err := r.load(ctx); err != nil {
		return pod.Container{}, err
	}
	unlock, err := r.locks.lock(ctx, q.Pod.UID)
	if err != nil {
		return pod.Container{}, err
	}
	defer unlock()
	c, err := r.start(ctx, q)
	if err != nil {
		return c, fmt.Errorf("start container %s of pod %s/%s: %w", q.Container.Name, q.Pod.Namespace, q.Pod.Name, err)
	}
	return c, nil
}

func (r *Runtime) start(ctx context.Context, q nodeagent.StartRequest) (pod.Container, error) {
	if rec, ok := r.attempt(q.Pod.UID, q.Container.Name, q.Attempt); ok {
		c, err := r.state(ctx, rec)
		if err != nil || c.State != pod.ContainerCreated {
			return c, err
		}
		if err := r.remove(ctx, rec, true); err != nil { // a start that was cut off
			return pod.Container{}, err
		}
	}
	sandbox, err := r.sandbox(q.Pod.UID)
	if err != nil {
		return pod.Container{}, err
	}
	if sandbox == nil {
		return pod.Container{}, fmt.Errorf("the pod has no sandbox: %w", schema.ErrUnavailable)
	}
	image, err := r.images.startable(ctx, q.Image)
	if err != nil {
		return pod.Container{}, fmt.Errorf("image %s: %w: %w", q.Image.Ref, err, schema.ErrUnavailable)
	}
	rec, mounts, err := r.create(ctx, q, image, sandbox)
	if err != nil {
		return pod.Container{}, r.undo(rec, err)
	}
	return r.run(ctx, rec, mounts, q.Sealed)
}

// undo removes what a start left that failed for a reason time may heal.
func (r *Runtime) undo(rec *record, cause error) error {
	if rec == nil {
		return cause
	}
	ctx, cancel := context.WithTimeout(r.life, cleanupWithin)
	defer cancel()
	if err := r.remove(ctx, *rec, true); err != nil {
		r.log.Warn("a container that did not start cannot be removed yet", "container", rec.ID, "err", err)
	}
	return cause
}

// create makes the record, the snapshot and the FIFOs. The record is what keeps
// the snapshot from being collected, and tells of it after a crash.
func (r *Runtime) create(ctx context.Context, q nodeagent.StartRequest, image *imageInfo, sandbox *sandboxRecord) (*record, []mount.Mount, error) {
	id := r.newID(q.Pod.UID)
	spec, err := r.spec(ctx, q, image, sandbox, id)
	if err != nil {
		return nil, nil, err
	}
	specAny, err := typeurl.MarshalAny(spec)
	if err != nil {
		return nil, nil, err
	}
	options, err := typeurl.MarshalAny(&runcoptions.Options{Root: r.runcRoot()})
	if err != nil {
		return nil, nil, err
	}
	c := containers.Container{
		ID: id, Labels: r.labels(q, image, sandbox), Image: q.Image.Ref, Spec: specAny,
		Runtime:     containers.RuntimeInfo{Name: runtimeName, Options: options},
		Snapshotter: r.opts.Snapshotter, SnapshotKey: id,
	}
	c.CreatedAt = time.Now()
	rec, _ := recordOf(c, r.opts.Instance)
	readMarks(&rec.Container, c.Labels)
	if err := r.makeFIFOs(rec.uid, id, rec.tty); err != nil {
		return nil, nil, err
	}
	if err := r.makeInput(rec); err != nil {
		return nil, nil, err
	}
	// It is known before it is made: a call that fails may have had its effect.
	r.mu.Lock()
	r.put(rec)
	r.mu.Unlock()
	if _, err := r.client.ContainerService().Create(ctx, c); err != nil {
		return rec, nil, unavailable("create the container", err)
	}
	mounts, err := r.prepare(ctx, q.Image.Ref, image, id)
	if err != nil {
		return rec, nil, err
	}
	mounts, err = r.mapRoot(sandbox, id, mounts)
	return rec, mounts, err
}

// prepare makes the container's own layer on top of the image's.
func (r *Runtime) prepare(ctx context.Context, ref string, image *imageInfo, id string) ([]mount.Mount, error) {
	snapshots := r.client.SnapshotService(r.opts.Snapshotter)
	mounts, err := snapshots.Prepare(ctx, id, image.chainID)
	if gone(err) {
		// Somebody removed what the image was unpacked to: unpack it again.
		if _, err := r.images.find(ctx, ref); err != nil {
			return nil, fmt.Errorf("image %s: %w: %w", ref, err, schema.ErrUnavailable)
		}
		mounts, err = snapshots.Prepare(ctx, id, image.chainID)
	}
	if err != nil {
		return nil, unavailable("prepare the container's file system", err)
	}
	return mounts, nil
}

func (r *Runtime) labels(q nodeagent.StartRequest, image *imageInfo, sandbox *sandboxRecord) map[string]string {
	key := schema.PodKey{Namespace: q.Pod.Namespace, Name: q.Pod.Name}
	l := map[string]string{
		labelInstance:  r.opts.Instance,
		labelUID:       string(q.Pod.UID),
		labelNamespace: key.Namespace,
		labelPod:       key.Name,
		labelContainer: q.Container.Name,
		labelAttempt:   strconv.Itoa(q.Attempt),
		labelBackoff:   strconv.Itoa(q.Backoff),
		labelSandbox:   stamp(sandbox.CreatedAt),
		labelImage:     fitting(labelImage, q.Container.Image),
		labelImageID:   fitting(labelImageID, imageID(q.Image.Ref, image.target)),
		labelLog:       r.logPath(key, q.Pod.UID, q.Container.Name, q.Attempt),
	}
	maps.Copy(l, messageLabels(q.Container))
	if q.Init {
		l[labelInit] = "true"
	}
	if q.Container.TTY {
		l[labelTTY] = "true"
	}
	if s := stdinOf(q.Container); s != "" {
		l[labelStdin] = s
	}
	if s := image.config.StopSignal; s != "" {
		l[labelStopSignal] = fitting(labelStopSignal, s)
	}
	return l
}

// run makes the task and starts it.
func (r *Runtime) run(ctx context.Context, rec *record, mounts []mount.Mount, sealed []string) (pod.Container, error) {
	l, err := r.openLog(rec)
	if err != nil {
		return pod.Container{}, r.undo(rec, err)
	}
	err = r.createTask(ctx, rec, mounts)
	if left := r.unmap(rec.uid, rec.ID); left != nil {
		r.log.Warn("what a start mounted is left until its container is removed", "container", rec.ID, "err", left)
	}
	if err != nil {
		defer l.writer.close()
		defer l.cut() // only now: a shim that is at it still would wait for a reader
		return r.failed(ctx, rec, err, sealed)
	}
	r.read(rec.ID, l)
	if err := l.writer.markStarted(); err != nil {
		return pod.Container{}, r.undo(rec, err)
	}
	began := time.Now()
	_, err = r.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: rec.ID})
	if err != nil {
		return r.failed(ctx, rec, errgrpc.ToNative(err), sealed)
	}
	r.mu.Lock()
	rec.StartedAt = began
	c := rec.Container
	r.mu.Unlock()
	c.State = pod.ContainerRunning
	return c, nil
}

// createTask has the shim make the container's process, stopped before its
// program begins.
func (r *Runtime) createTask(ctx context.Context, rec *record, mounts []mount.Mount) error {
	request := &tasks.CreateTaskRequest{ContainerID: rec.ID, Terminal: rec.tty}
	request.Stdout, request.Stderr = r.fifos(rec.uid, rec.ID)
	if rec.tty {
		request.Stderr = ""
	}
	if rec.stdin != "" {
		request.Stdin = r.inputPath(rec.uid, rec.ID)
	}
	for _, m := range mounts {
		request.Rootfs = append(request.Rootfs, &containerdtypes.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	var err error
	for try := range 5 {
		// The pod's shim may be ending, as its last container was just removed.
		if _, err = r.client.TaskService().Create(ctx, request); err == nil {
			return nil
		}
		if !shimClosed(err) || !wait(ctx, time.Duration(try)*5*time.Millisecond) {
			break
		}
	}
	return errgrpc.ToNative(err)
}

// failed keeps a container that cannot be started, as exited, when that is the
// manifest's or the image's fault; otherwise the start is undone and can be tried
// again.
func (r *Runtime) failed(ctx context.Context, rec *record, cause error, sealed []string) (pod.Container, error) {
	text, ok := startFault(cause)
	text = nodeagent.Mask(text, sealed)
	if !ok {
		return pod.Container{}, r.undo(rec, unavailable("make its process", cause))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWithin)
	defer cancel()
	now := time.Now()
	if err := r.deleteTask(ctx, rec.ID); err != nil {
		return pod.Container{}, err
	}
	err := r.setLabels(ctx, rec.ID, map[string]string{
		labelStartError: fitting(labelStartError, text), labelFinished: stamp(now),
	}, func(rec *record) { rec.StartError, rec.FinishedAt = text, now })
	if err != nil {
		return pod.Container{}, err
	}
	if err := r.removeFIFOs(rec.uid, rec.ID); err != nil {
		return pod.Container{}, err
	}
	r.mu.Lock()
	c := rec.Container
	r.mu.Unlock()
	c.State, c.ExitCode = pod.ContainerExited, startErrorCode
	return c, nil
}

// runcSignalled matches what containerd says of a runc that a signal ended, by
// the status that shells give that: 128 and the signal's number.
var runcSignalled = regexp.MustCompile(`runc did not terminate successfully: exit status 1(2[89]|[3-9][0-9])\b`)

// startFault is runc's own words on why it cannot start a container; false when
// it was not runc that failed.
func startFault(err error) (string, bool) {
	text := oneLine(err)
	if strings.Contains(text, "unable to retrieve OCI runtime error") || runcSignalled.MatchString(text) {
		return "", false // runc was killed, or its directory taken from under it: it says nothing
	}
	for _, ours := range []string{"already exists", "signal: killed", "context canceled", "context deadline exceeded"} {
		if strings.HasSuffix(strings.TrimSuffix(text, ": unknown"), ours) {
			return "", false // a start before this one was cut off, or runc was
		}
	}
	for _, runc := range []string{"OCI runtime create failed: ", "OCI runtime start failed: ", "OCI runtime exec failed: "} {
		if _, after, ok := strings.Cut(text, runc); ok {
			after = strings.TrimSuffix(after, ": unknown")
			for _, noise := range []string{"runc create failed: ", "exec failed: ", "unable to start container process: "} {
				after = strings.TrimPrefix(after, noise)
			}
			return after, true
		}
	}
	return "", false
}

// shimClosed says whether a shim ended while it was asked.
func shimClosed(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "ttrpc: closed") || strings.Contains(err.Error(), "ttrpc: server closed"))
}

// runcRoot is where runc keeps its states; runc's own would mix instances.
func (r *Runtime) runcRoot() string { return r.opts.RunDir + "/runc" }
