package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A container's input goes through a FIFO into its shim, and from there into
// the process. The shim holds a writing end of it until it is told that there is
// no more to come: neither the end of an attachment nor that of this process is
// the end of the input. The FIFO's file goes first; without it nobody attaches to
// the input again.

// What a container's label says of its input.
const (
	stdinOpen = "open" // as long as the container runs
	stdinOnce = "once" // until the end of the first attachment
)

func stdinOf(c *corev1.Container) string {
	switch {
	case !c.Stdin:
		return ""
	case c.StdinOnce:
		return stdinOnce
	}
	return stdinOpen
}

func (r *Runtime) inputPath(uid types.UID, id string) string {
	return filepath.Join(r.podDir(uid), "io", id+".in")
}

// makeInput makes the FIFO of a container that has input.
func (r *Runtime) makeInput(rec *record) error {
	if err := r.removeInput(rec.uid, rec.ID); err != nil { // of a start that was cut off
		return err
	}
	if rec.stdin == "" {
		return nil
	}
	path := r.inputPath(rec.uid, rec.ID)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return fmt.Errorf("make FIFO %s: %w", path, err)
	}
	return nil
}

func (r *Runtime) removeInput(uid types.UID, id string) error {
	if err := os.Remove(r.inputPath(uid, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// endInput ends a running container's input: its process reads the rest and then
// sees the end. Others who are attached may write until they leave.
func (r *Runtime) endInput(rec record) error {
	if err := r.removeInput(rec.uid, rec.ID); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.life, cleanupWithin)
	defer cancel()
	_, err := r.client.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: rec.ID, Stdin: true})
	if err = errgrpc.ToNative(err); err != nil && !finished(err) {
		return unavailable("end the container's input", err)
	}
	return nil
}
