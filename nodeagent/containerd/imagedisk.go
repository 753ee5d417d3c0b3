package containerd

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

// diskUsage is how full a file system is, in bytes. What only root may use
// counts neither as free nor as part of it.
type diskUsage struct{ capacity, free int64 }

func (u diskUsage) used() int64 { return u.capacity - u.free }

func usageOf(path string) (diskUsage, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return diskUsage{}, fmt.Errorf("look at the disk of %s: %w", path, err)
	}
	return diskUsage{int64(fs.Blocks-fs.Bfree+fs.Bavail) * fs.Bsize, int64(fs.Bavail) * fs.Bsize}, nil
}

// An imageDisk is the file system on which containerd unpacks images. containerd
// says where that is, so that a daemon of somebody else's will do.
type imageDisk struct {
	client      *client.Client
	snapshotter string
	usage       func(path string) (diskUsage, error)

	mu   sync.Mutex
	root string // "": not asked yet
}

// path is the snapshotter's root directory.
func (d *imageDisk) path(ctx context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root != "" {
		return d.root, nil
	}
	response, err := d.client.IntrospectionService().Plugins(ctx, "id=="+d.snapshotter)
	if err != nil {
		return "", unavailable("ask containerd where images lie", err)
	}
	for _, p := range response.GetPlugins() {
		if p.GetType() == "io.containerd.snapshotter.v1" && p.GetExports()["root"] != "" {
			d.root = p.GetExports()["root"]
			return d.root, nil
		}
	}
	return "", fmt.Errorf("containerd does not say where the snapshotter %s keeps images: %w", d.snapshotter, schema.ErrUnavailable)
}

func (d *imageDisk) look(ctx context.Context) (diskUsage, error) {
	root, err := d.path(ctx)
	if err != nil {
		return diskUsage{}, err
	}
	if d.usage != nil {
		return d.usage(root)
	}
	return usageOf(root)
}

// room is the number of bytes that are free; -1: not known.
func (d *imageDisk) room(ctx context.Context) int64 {
	u, err := d.look(ctx)
	if err != nil {
		return -1
	}
	return u.free
}
