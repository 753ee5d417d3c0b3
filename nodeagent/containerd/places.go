package containerd

import (
	"context"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/pawl-project/pawl/nodeagent"
)

var _ nodeagent.RuntimePlaces = (*Runtime)(nil)

// layers keeps where the containers' writable layers lie, so that containerd is
// asked once for each.
type layers struct {
	mu    sync.Mutex
	upper map[string]string // by container id; "": the snapshotter has no such directory
}

// Places lists where the containers write to: their layers, their logs, and the
// directories that they have instead of their images' volumes.
func (r *Runtime) Places(ctx context.Context) ([]nodeagent.Place, error) {
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	r.layers.mu.Lock()
	defer r.layers.mu.Unlock()
	var places []nodeagent.Place
	known := map[string]string{}
	for _, rec := range r.all() {
		upper, ok := r.layers.upper[rec.ID]
		if !ok {
			var err error
			if upper, err = r.upperDir(ctx, rec.ID); err != nil {
				return nil, err
			}
		}
		known[rec.ID] = upper
		dirs := []string{r.volumesDir(rec.ID), upper}
		if rec.LogPath != "" {
			dirs = append(dirs, filepath.Dir(rec.LogPath))
		}
		for _, dir := range dirs {
			if dir != "" {
				places = append(places, nodeagent.Place{UID: rec.uid, Container: rec.Name, Path: dir})
			}
		}
	}
	r.layers.upper = known
	return once(places), nil
}

// once leaves out a directory that was listed before: all attempts of a
// container have their logs in one.
func once(places []nodeagent.Place) []nodeagent.Place {
	listed := map[string]bool{}
	kept := places[:0]
	for _, p := range places {
		if !listed[p.Path] {
			listed[p.Path] = true
			kept = append(kept, p)
		}
	}
	return kept
}

// all are copies of all records.
func (r *Runtime) all() []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]record, 0, len(r.records))
	for _, rec := range r.records {
		all = append(all, *rec)
	}
	return all
}

// upperDir is where a container's writable layer lies; "" when it has none, or
// the snapshotter keeps it otherwise.
func (r *Runtime) upperDir(ctx context.Context, id string) (string, error) {
	mounts, err := r.client.SnapshotService(r.opts.Snapshotter).Mounts(ctx, id)
	if gone(err) {
		return "", nil
	}
	if err != nil {
		return "", unavailable("ask for the layer of container "+id, err)
	}
	return upperOf(mounts), nil
}

func upperOf(mounts []mount.Mount) string {
	for _, m := range mounts {
		if m.Type == "bind" && !readOnly(m.Options) { // an image without layers
			return m.Source
		}
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				return dir
			}
		}
	}
	return ""
}

func readOnly(options []string) bool {
	for _, o := range options {
		if o == "ro" {
			return true
		}
	}
	return false
}
