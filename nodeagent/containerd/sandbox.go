package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// A pod's sandbox is the directory RunDir/pods/<uid>:
//
//	net ipc uts        pinned namespaces (those that are not the host's)
//	pid pause          of a pod whose containers share their processes: the pinned
//	                   namespace, and where its process 1 has its root
//	users user         of a pod with users of its own: which, and the pinned namespace
//	mapped             mounts that translate users, per container that is being started
//	shm                tmpfs, the containers' /dev/shm
//	hosts hostname resolv.conf
//	io                 FIFOs of its containers' input and output
//	volumes            images' VOLUMEs, per container
//	cutoff             of a pod of which a start was cut off
//	sandbox.json       written last: a directory without it is half made
//
// RunDir is forgotten by a restart of the machine, and so is what it pins; where
// it is not, a record whose namespaces are gone counts as none.

const shmSize = 64 << 20 // of /dev/shm, in bytes, as Kubernetes gives

// sandboxRecord is sandbox.json.
type sandboxRecord struct {
	UID         types.UID `json:"uid"`
	Namespace   string    `json:"namespace"`
	Name        string    `json:"name"`
	IP          string    `json:"ip,omitempty"`
	HostNetwork bool      `json:"hostNetwork,omitempty"`
	HostIPC     bool      `json:"hostIPC,omitempty"`
	HostPID     bool      `json:"hostPID,omitempty"`
	SharePID    bool      `json:"sharePID,omitempty"`
	Users       uint32    `json:"users,omitempty"` // who the pod's root is on the node; 0: root
	CreatedAt   time.Time `json:"createdAt"`
}

func (s *sandboxRecord) key() schema.PodKey {
	return schema.PodKey{Namespace: s.Namespace, Name: s.Name}
}

func (s *sandboxRecord) seen() pod.Sandbox {
	return pod.Sandbox{Ready: true, IP: s.IP, CreatedAt: s.CreatedAt}
}

// kinds are the namespaces it has of its own.
func (s *sandboxRecord) kinds() []nsKind {
	var kinds []nsKind
	if s.Users != 0 {
		kinds = append(kinds, nsUser)
	}
	if !s.HostNetwork {
		kinds = append(kinds, nsNet, nsUTS)
	}
	if !s.HostIPC {
		kinds = append(kinds, nsIPC)
	}
	return kinds
}

func (r *Runtime) podDir(uid types.UID) string {
	return filepath.Join(r.opts.RunDir, "pods", string(uid))
}

// CreateSandbox makes what the pod's containers share, or returns what is there.
func (r *Runtime) CreateSandbox(ctx context.Context, p *corev1.Pod) (pod.Sandbox, error) {
	if err := checkUID(p.UID); err != nil {
		return pod.Sandbox{}, err
	}
	unlock, err := r.locks.lock(ctx, p.UID)
	if err != nil {
		return pod.Sandbox{}, err
	}
	defer unlock()
	s, err := r.sandbox(p.UID)
	if err != nil {
		return pod.Sandbox{}, err
	}
	if s == nil {
		if s, err = r.makeSandbox(ctx, p); err != nil {
			return pod.Sandbox{}, fmt.Errorf("sandbox of pod %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	return s.seen(), nil
}

func (r *Runtime) makeSandbox(ctx context.Context, p *corev1.Pod) (_ *sandboxRecord, err error) {
	s := &sandboxRecord{
		UID: p.UID, Namespace: p.Namespace, Name: p.Name,
		HostNetwork: p.Spec.HostNetwork, HostIPC: p.Spec.HostIPC, HostPID: p.Spec.HostPID,
		SharePID:  sharesPID(p),
		CreatedAt: time.Now(),
	}
	name, err := nodeName(p)
	if err != nil {
		return nil, err
	}
	dir := r.podDir(p.UID)
	_, cutOff := os.Lstat(r.cutOffMark(p.UID))
	if err := r.clearSandbox(dir); err != nil { // what a killed agent half made
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "io"), 0o711); err != nil {
		return nil, err
	}
	if cutOff == nil {
		r.markCutOff(p.UID) // of the pod it still holds
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.clearSandbox(dir), r.detach(context.WithoutCancel(ctx), p.UID, s.HostNetwork))
		}
	}()
	if usesUserNamespace(p) {
		if s.Users, err = r.takeRange(p.UID); err != nil {
			return nil, err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := r.makeNamespaces(s, dir, name); err != nil {
			return err
		}
		return r.connect(gctx, p, s, dir)
	})
	g.Go(func() error {
		if err := mountShm(filepath.Join(dir, "shm"), s.Users); err != nil {
			return err
		}
		return r.makeCgroup(p)
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if s.SharePID && s.Users == 0 {
		if err := r.startPause(p.UID, dir, s.kinds()); err != nil {
			return nil, err
		}
	}
	if err := writeNameFiles(dir, p, s); err != nil {
		return nil, err
	}
	if err := s.write(dir); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.pods[p.UID] = &podState{sandbox: s}
	r.mu.Unlock()
	return s, nil
}

func (r *Runtime) connect(ctx context.Context, p *corev1.Pod, s *sandboxRecord, dir string) (err error) {
	if s.HostNetwork || r.opts.Network == nil {
		return nil
	}
	if s.IP, err = r.opts.Network.Attach(ctx, s.UID, filepath.Join(dir, nsNet.name)); err != nil {
		return err
	}
	return r.publish(ctx, p)
}

func (r *Runtime) detach(ctx context.Context, uid types.UID, hostNetwork bool) error {
	if hostNetwork || r.opts.Network == nil {
		return nil
	}
	return r.opts.Network.Detach(ctx, uid)
}

// makeNamespaces makes and pins the pod's namespaces.
func (r *Runtime) makeNamespaces(s *sandboxRecord, dir, hostname string) error {
	if s.Users != 0 {
		return r.makeUserNamespaces(s, dir, hostname)
	}
	return pinNamespaces(dir, s.kinds(), hostname)
}

// mountShm mounts the pod's /dev/shm, which is its root's.
func mountShm(dir string, root uint32) error {
	if err := os.Mkdir(dir, 0o1777); err != nil {
		return err
	}
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("mode=1777,size=%d,uid=%d,gid=%d", shmSize, root, root)); err != nil {
		return fmt.Errorf("mount the pod's /dev/shm: %w", err)
	}
	return nil
}

// write keeps the record. It is not synced: after a crash of the machine there
// is no sandbox anyway.
func (s *sandboxRecord) write(dir string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "sandbox.json"), text, 0o644)
}

// sandbox returns the pod's sandbox; nil when it has none that is whole.
func (r *Runtime) sandbox(uid types.UID) (*sandboxRecord, error) {
	r.mu.Lock()
	known := r.pods[uid]
	r.mu.Unlock()
	dir := r.podDir(uid)
	if known != nil {
		return r.stillWhole(known.sandbox), nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "sandbox.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := decodeSandbox(text, uid)
	if err != nil {
		r.log.Warn("a sandbox record is spoilt; the sandbox is made anew", "pod", uid, "err", err)
		return nil, nil
	}
	for _, k := range s.kinds() {
		if !pinned(filepath.Join(dir, k.name)) {
			return nil, nil
		}
	}
	if r.stillWhole(s) == nil {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods[uid] = &podState{sandbox: s}
	return s, nil
}

// stillWhole is the sandbox, nil when its PID namespace has lost its process 1.
func (r *Runtime) stillWhole(s *sandboxRecord) *sandboxRecord {
	if s != nil && s.SharePID && !r.pauseLives(s.UID) {
		return nil
	}
	return s
}

// decodeSandbox reads a record, which must be the pod's.
func decodeSandbox(text []byte, uid types.UID) (*sandboxRecord, error) {
	s := &sandboxRecord{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, err
	}
	if s.UID != uid {
		return nil, fmt.Errorf("it is of the pod with uid %q", s.UID)
	}
	if s.Users != 0 && !isRange(s.Users) {
		return nil, fmt.Errorf("its users cannot begin at %d", s.Users)
	}
	return s, nil
}

// sandboxes lists the pods that have a directory, whole or not.
func (r *Runtime) sandboxes() ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(r.opts.RunDir, "pods"))
	if err != nil {
		return nil, err
	}
	uids := make([]types.UID, 0, len(entries))
	for _, e := range entries {
		if uid := types.UID(e.Name()); checkUID(uid) == nil {
			uids = append(uids, uid)
		}
	}
	return uids, nil
}

// clearSandbox removes the directory and what is mounted in it.
func (r *Runtime) clearSandbox(dir string) error {
	// The record goes first: what follows is not a sandbox any more.
	if err := os.Remove(filepath.Join(dir, "sandbox.json")); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err := r.endPause(types.UID(filepath.Base(dir))); err != nil {
		return err
	}
	if err := errors.Join(unpinNamespaces(dir), unmount(filepath.Join(dir, "shm")), r.unmapAll(types.UID(filepath.Base(dir)))); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// RemoveSandbox removes all that is left of the pod.
func (r *Runtime) RemoveSandbox(ctx context.Context, uid types.UID) error {
	if err := checkUID(uid); err != nil {
		return err
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	unlock, err := r.locks.lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	if left := r.ofPod(uid); len(left) > 0 {
		return fmt.Errorf("remove the sandbox of pod %s: container %s is still there: %w", uid, left[0].Name, schema.ErrUnavailable)
	}
	return r.removeSandbox(ctx, uid)
}

// removeSandbox removes it whole or half made. The pod's lock is held.
func (r *Runtime) removeSandbox(ctx context.Context, uid types.UID) error {
	s, err := r.sandbox(uid)
	if err != nil {
		return err
	}
	if err := r.clearCutOff(ctx, uid); err != nil {
		return fmt.Errorf("clear what starts of pod %s left: %w", uid, err)
	}
	r.mu.Lock()
	delete(r.pods, uid)
	r.mu.Unlock()
	// The address is free for others once its namespace is gone.
	if err := r.clearSandbox(r.podDir(uid)); err != nil {
		return fmt.Errorf("clear the sandbox of pod %s: %w", uid, err)
	}
	if err := r.detach(ctx, uid, s != nil && s.HostNetwork); err != nil {
		return fmt.Errorf("detach pod %s: %w", uid, err)
	}
	if err := r.removeCgroup(r.podCgroup(uid)); err != nil {
		return fmt.Errorf("%w: %w", err, schema.ErrUnavailable)
	}
	return r.removePodLogs(uid)
}

// sweep removes the sandboxes that a killed agent half made or half removed, and
// ends what else it had begun.
func (r *Runtime) sweep(ctx context.Context) error {
	uids, err := r.sandboxes()
	if err != nil {
		return err
	}
	r.holdOpen(uids)
	for _, uid := range uids {
		if err := r.sweepPod(ctx, uid); err != nil {
			// It is in nobody's way: who makes it anew clears it first.
			r.log.Warn("a half-made sandbox cannot be removed", "pod", uid, "err", err)
		}
	}
	r.endLeftExecs(uids)
	return r.images.dropMoments(ctx)
}

func (r *Runtime) sweepPod(ctx context.Context, uid types.UID) error {
	unlock, err := r.locks.lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	if s, err := r.sandbox(uid); err != nil || s != nil || len(r.ofPod(uid)) > 0 {
		return err
	}
	r.log.Info("removing a sandbox that was half made", "pod", uid)
	return r.removeSandbox(ctx, uid)
}
