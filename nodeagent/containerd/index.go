package containerd

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"k8s.io/apimachinery/pkg/types"
)

// Only this process writes containers of its instance, so their records are
// read once and kept; a look at a pod then asks for its tasks alone. Listing a
// node's records for each look would make every look cost as much as the node
// is large.

// newID is a container's id, another one for each start: what is left of a start
// that was cut off is in no other's way. Its second half is the pod's.
func (r *Runtime) newID(uid types.UID) string {
	var own [idSize / 2]byte
	rand.Read(own[:]) // it never fails
	return hex.EncodeToString(own[:]) + r.podMark(uid)
}

const idSize = 32 // in bytes

// podMark ends the ids of a pod's containers: what is found by its id alone, a
// shim say, tells whose it is.
func (r *Runtime) podMark(uid types.UID) string {
	sum := sha256.Sum256([]byte(r.opts.Instance + "/" + string(uid)))
	return hex.EncodeToString(sum[:idSize/2])
}

func (r *Runtime) isOfPod(id string, uid types.UID) bool {
	return len(id) == 2*idSize && strings.HasSuffix(id, r.podMark(uid))
}

// attempt returns a copy of the record of one attempt of a pod's container.
func (r *Runtime) attempt(uid types.UID, name string, attempt int) (record, bool) {
	for _, rec := range r.ofPod(uid) {
		if rec.Name == name && rec.Attempt == attempt {
			return rec, true
		}
	}
	return record{}, false
}

// load reads every record of ours, once.
func (r *Runtime) load(ctx context.Context) error {
	r.mu.Lock()
	loaded := r.loaded
	r.mu.Unlock()
	if loaded {
		return nil
	}
	return r.reload(ctx)
}

// reload reads every record of ours and takes up the output of what runs.
func (r *Runtime) reload(ctx context.Context) error {
	unlock, err := r.locks.lock(ctx, "") // one at a time; no pod has this uid
	if err != nil {
		return err
	}
	defer unlock()
	r.mu.Lock()
	r.dropped = map[string]bool{}
	r.mu.Unlock()
	list, err := r.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q==%s", labelInstance, r.opts.Instance))
	first := r.takeUp(list, err == nil)
	switch {
	case err != nil:
		return unavailable("list the containers", err)
	case first:
		return r.sweep(ctx)
	}
	return nil
}

// takeUp keeps the records of a list that were not known, unless their containers
// were removed since the list was asked for. It says whether it is the first.
func (r *Runtime) takeUp(list []containers.Container, whole bool) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range list {
		rec, ok := recordOf(c, r.opts.Instance)
		if !ok || r.dropped[c.ID] {
			continue
		}
		readMarks(&rec.Container, c.Labels)
		if r.records[c.ID] == nil { // what we have is at least as new
			r.put(rec)
		}
	}
	r.dropped = nil
	first = whole && !r.loaded
	r.loaded = r.loaded || whole
	return first
}

// put keeps a record. Runtime.mu is held.
func (r *Runtime) put(rec *record) {
	r.records[rec.ID] = rec
	if r.ids[rec.uid] == nil {
		r.ids[rec.uid] = map[string]bool{}
	}
	r.ids[rec.uid][rec.ID] = true
}

// drop forgets a record. Runtime.mu is held.
func (r *Runtime) drop(id string) {
	if r.dropped != nil {
		r.dropped[id] = true
	}
	rec := r.records[id]
	if rec == nil {
		return
	}
	delete(r.records, id)
	delete(r.logs, id)
	delete(r.ids[rec.uid], id)
	if len(r.ids[rec.uid]) == 0 {
		delete(r.ids, rec.uid)
	}
}

// record returns a copy of a container's record.
func (r *Runtime) record(ctx context.Context, id string) (record, bool, error) {
	if err := r.load(ctx); err != nil {
		return record{}, false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.records[id]; rec != nil {
		return *rec, true, nil
	}
	return record{}, false, nil
}

// lockRecord takes the lock of a container's pod and returns a copy of the record
// as it is then; nil, and no lock, when there is none.
func (r *Runtime) lockRecord(ctx context.Context, id string) (_ *record, unlock func(), err error) {
	rec, ok, err := r.record(ctx, id)
	if err != nil || !ok {
		return nil, nil, err
	}
	if unlock, err = r.locks.lock(ctx, rec.uid); err != nil {
		return nil, nil, err
	}
	if rec, ok, err = r.record(ctx, id); err != nil || !ok {
		unlock()
		return nil, nil, err
	}
	return &rec, unlock, nil
}

// ofPod returns copies of the records of a pod's containers, by name, then attempt.
func (r *Runtime) ofPod(uid types.UID) []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]record, 0, len(r.ids[uid]))
	for id := range r.ids[uid] {
		all = append(all, *r.records[id])
	}
	slices.SortFunc(all, func(a, b record) int {
		if a.Name != b.Name {
			if a.Name < b.Name {
				return -1
			}
			return 1
		}
		return a.Attempt - b.Attempt
	})
	return all
}

// setLabels writes labels of a container and then changes its record with f.
func (r *Runtime) setLabels(ctx context.Context, id string, labels map[string]string, f func(*record)) error {
	c := containers.Container{ID: id, Labels: labels}
	paths := make([]string, 0, len(labels))
	for k := range labels {
		paths = append(paths, "labels."+k)
	}
	if _, err := r.client.ContainerService().Update(ctx, c, paths...); err != nil {
		if errdefs.IsNotFound(err) {
			return err
		}
		return unavailable("label container "+id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.records[id]; rec != nil {
		f(rec)
	}
	return nil
}
