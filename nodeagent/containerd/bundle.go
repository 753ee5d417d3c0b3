package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
)

// bundles is where containerd keeps what its shims work in, below its state.
const bundles = "/io.containerd.runtime.v2.task/" + namespace + "/"

// leftBundle is the folder that stands in the way of a new task, by the error
// with which containerd refuses to make the task; "" when nothing does.
//
// A containerd that is killed after it made the folder, and before it wrote
// anything into it, leaves one that the next may not clear away; it then fails
// to make it for ever.
func leftBundle(err error, id string) string {
	if err == nil {
		return ""
	}
	_, rest, found := strings.Cut(err.Error(), "mkdir ")
	path, _, exists := strings.Cut(rest, ": file exists")
	if !found || !exists || !filepath.IsAbs(path) || filepath.Clean(path) != path || !strings.HasSuffix(path, bundles+id) {
		return ""
	}
	return path
}

// dropBundle removes such a folder, unless containerd knows a task of it. The
// pod's lock is held: nobody else makes that task.
func (r *Runtime) dropBundle(ctx context.Context, path, id string) error {
	_, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); !gone(err) {
		return unavailable("look for the task of container "+id, errors.Join(err, errBundleUsed))
	}
	r.log.Warn("removing what a killed containerd left of a container", "container", id, "folder", path)
	root := filepath.Join(path, "rootfs")
	for err = nil; err == nil; { // what is mounted is not to be removed with it
		err = unix.Unmount(root, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", root, err)
	}
	return os.RemoveAll(path)
}

var errBundleUsed = errors.New("its folder is there, and may be in use")
