package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// partsName is the directory of a pod's pinned subPaths; no volume can be called
// so. Its name begins with two dots, as everything of ours does.
const partsName = "..parts"

// Mounts returns the mounts of one container, in the order of the spec. Each
// subPath is resolved anew and pinned, so that a restarted container sees what is
// there now.
func (v *Volumes) Mounts(p *corev1.Pod, c *corev1.Container) ([]nodeagent.Mount, error) {
	if err := checkUID(p.UID); err != nil {
		return nil, err
	}
	mounts := make([]nodeagent.Mount, 0, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		m, err := v.mount(p, c, i)
		if err != nil {
			return nil, fmt.Errorf("mount %s at %s: %w", c.VolumeMounts[i].Name, c.VolumeMounts[i].MountPath, err)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func (v *Volumes) mount(p *corev1.Pod, c *corev1.Container, i int) (nodeagent.Mount, error) {
	m := &c.VolumeMounts[i]
	at := slices.IndexFunc(p.Spec.Volumes, func(x corev1.Volume) bool { return x.Name == m.Name })
	if at < 0 {
		return nodeagent.Mount{}, fmt.Errorf("the pod has no volume %q: %w", m.Name, schema.ErrRefused)
	}
	vol := &p.Spec.Volumes[at]
	if err := checkName(vol.Name); err != nil {
		return nodeagent.Mount{}, err
	}
	k, err := kindOf(vol)
	if err != nil {
		return nodeagent.Mount{}, err
	}
	if m.SubPathExpr != "" && m.SubPath == "" {
		return nodeagent.Mount{}, fmt.Errorf("subPathExpr %s was not expanded: %w", m.SubPathExpr, schema.ErrRefused)
	}
	// A relative path is below the root, as Kubernetes has it.
	out := nodeagent.Mount{HostPath: v.dir(p.UID, vol), ContainerPath: path.Clean("/" + m.MountPath), ReadOnly: m.ReadOnly || k.files || k.nfs && vol.NFS.ReadOnly}
	if m.MountPropagation != nil {
		out.Propagation = *m.MountPropagation
	}
	if m.SubPath == "" {
		return out, nil
	}
	out.HostPath, err = v.pin(p.UID, c.Name, i, k, out.HostPath, m.SubPath)
	return out, err
}

// pin binds one path of a volume to a place that containers cannot change.
func (v *Volumes) pin(uid types.UID, container string, index int, k kind, volume, subPath string) (string, error) {
	if err := checkName(container); err != nil {
		return "", err
	}
	sub, err := cleanSubPath(subPath)
	if err != nil {
		return "", fmt.Errorf("subPath: %w", err)
	}
	fd, isDir, err := resolve(volume, sub, k)
	if err != nil {
		return "", fmt.Errorf("subPath %s: %w", sub, err)
	}
	defer unix.Close(fd)
	at := filepath.Join(v.runDir, string(uid), partsName, container, strconv.Itoa(index))
	if err := unmount(at); err != nil {
		return "", err
	}
	if err := makeTarget(at, isDir); err != nil {
		return "", fmt.Errorf("subPath %s: %w", sub, err)
	}
	flags := uintptr(unix.MS_BIND)
	if k.host {
		flags |= unix.MS_REC // the node may have mounts in it
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), at, "", flags, ""); err != nil {
		return "", fmt.Errorf("subPath %s: bind mount: %w", sub, err)
	}
	return at, nil
}

// cleanSubPath is like cleanPath, but may name what begins with two dots.
func cleanSubPath(p string) (string, error) {
	clean := path.Clean(p)
	if !filepath.IsLocal(p) || slices.Contains(splitPath(p), "..") || len(p) > maxPathLen || len(splitPath(p)) > maxNames {
		return "", fmt.Errorf("%q must be relative, without '..', and not too long: %w", p, schema.ErrRefused)
	}
	return clean, nil
}

// resolve opens a path below the volume. The kernel follows links only while
// they stay below. What is missing is made as a directory, but in a volume of files.
func resolve(volume, sub string, k kind) (fd int, isDir bool, err error) {
	flags, how := unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	if !k.host { // the node's own may be a link and have mounts in it; ours have none
		flags |= unix.O_NOFOLLOW
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	create := !k.files
	root, err := unix.Open(volume, flags, 0)
	if err != nil {
		return -1, false, fmt.Errorf("open the volume: %w", err)
	}
	defer unix.Close(root)
	for range resolveTries {
		fd, err = unix.Openat2(root, sub, how)
		switch {
		case errors.Is(err, unix.EAGAIN): // something was renamed meanwhile
			continue
		case errors.Is(err, unix.ENOENT) && create:
			if err := makeBelow(volume, sub); err != nil {
				return -1, false, err
			}
			continue
		}
		break
	}
	switch {
	case errors.Is(err, unix.EXDEV):
		return -1, false, fmt.Errorf("leads out of the volume: %w", schema.ErrRefused)
	case errors.Is(err, unix.ENOENT):
		return -1, false, fmt.Errorf("is not in the volume: %w", schema.ErrNotFound)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return -1, false, fmt.Errorf("%w: %w", err, schema.ErrRefused)
	case err != nil:
		return -1, false, fmt.Errorf("resolve: %w: %w", err, schema.ErrUnavailable)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return -1, false, fmt.Errorf("look at it: %w", err)
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fd, true, nil
	case unix.S_IFREG:
		return fd, false, nil
	default:
		unix.Close(fd)
		return -1, false, fmt.Errorf("is neither a file nor a directory: %w", schema.ErrRefused)
	}
}

// resolveTries bounds a race that a container could go on with for ever.
const resolveTries = 32

// makeBelow makes the directories of a path below the volume, with the volume's
// own mode and group, so that whoever may write to the volume may write there.
func makeBelow(volume, sub string) error {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	defer root.Close()
	var stat unix.Stat_t
	if err := unix.Stat(volume, &stat); err != nil {
		return fmt.Errorf("look at the volume: %w", err)
	}
	dir := ""
	for _, name := range splitPath(sub) {
		dir = path.Join(dir, name)
		err := root.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("make it: %w: %w", err, schema.ErrRefused)
		}
		mode := fs.FileMode(stat.Mode & 0o777)
		if stat.Mode&unix.S_ISGID != 0 {
			mode |= fs.ModeSetgid
		}
		if err := errors.Join(root.Lchown(dir, 0, int(stat.Gid)), root.Chmod(dir, mode)); err != nil {
			return fmt.Errorf("make it: %w", err)
		}
	}
	return nil
}

// makeTarget makes what a bind mount needs to lie on: a directory or a file.
func makeTarget(at string, isDir bool) error {
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return err
	}
	// What lay here may have been of the other kind.
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if isDir {
		return os.Mkdir(at, 0o700)
	}
	return os.WriteFile(at, nil, 0o600)
}
