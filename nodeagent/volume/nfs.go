package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

const (
	// nfsLimit is how long a server may take to let itself be mounted. The kernel
	// would try for minutes, and the pod would not say why it waits.
	nfsLimit = 30 * time.Second
	// nfsWords bounds what of the mount helper's words is kept, in bytes.
	nfsWords = 500
)

// setupNFS mounts an NFS export at dir, once. mount(8) and its helper mount.nfs
// (Debian: nfs-common) speak to the server. An error wraps schema.ErrUnavailable:
// the server, the network or the helper may come.
func (v *Volumes) setupNFS(ctx context.Context, dir string, n *corev1.NFSVolumeSource) error {
	if n.Server == "" || strings.HasPrefix(n.Server, "-") || !filepath.IsAbs(n.Path) || strings.Contains(n.Path, ",") {
		return fmt.Errorf("nfs %s:%s: want a server and an absolute path: %w", n.Server, n.Path, schema.ErrRefused)
	}
	if err := ensureDir(dir); err != nil {
		return err
	}
	if there, err := isMountPoint(dir); err != nil || there {
		return err
	}
	server := n.Server
	if strings.Contains(server, ":") && !strings.HasPrefix(server, "[") {
		server = "[" + server + "]" // an IPv6 address
	}
	options := "rw"
	if n.ReadOnly {
		options = "ro"
	}
	ctx, cancel := context.WithTimeout(ctx, nfsLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, v.mounter, "-t", "nfs", "-o", options, server+":"+n.Path, dir)
	cmd.WaitDelay = time.Second
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		said := strings.Join(strings.Fields(string(words.Bytes()[:min(words.Len(), nfsWords)])), " ")
		return fmt.Errorf("mount nfs %s:%s: %w: %s: %w", n.Server, n.Path, err, said, schema.ErrUnavailable)
	}
	return nil
}

// isMountPoint says whether something is mounted at dir itself. A server that
// does not answer is not asked for that.
func isMountPoint(dir string) (bool, error) {
	var here, above unix.Statx_t
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	err := errors.Join(
		unix.Statx(unix.AT_FDCWD, dir, flags, unix.STATX_TYPE, &here),
		unix.Statx(unix.AT_FDCWD, filepath.Dir(dir), flags, unix.STATX_TYPE, &above))
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	return here.Dev_major != above.Dev_major || here.Dev_minor != above.Dev_minor, nil
}
