package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// Files of images and volumes have on disk the numbers of users that they have
// in the pod. A pod with a user namespace sees them through mounts that add the
// beginning of its range (the kernel's ID-mapped mounts), made here: the runc of
// many machines cannot. They lie below <pod>/mapped/<container>, where runc and
// the shim take copies of them; a started container needs them no more.

func (r *Runtime) mappedDir(uid types.UID, id string) string {
	return filepath.Join(r.podDir(uid), "mapped", id)
}

// A translator makes mounts that translate users, for one container.
type translator struct {
	dir   string
	kind  string   // of what it makes: their names begin so
	users *os.File // the pod's user namespace
	count int
}

// translator is for a container of a pod with a user namespace. Close it.
func (r *Runtime) translator(s *sandboxRecord, id, kind string) (*translator, error) {
	dir := r.mappedDir(s.UID, id)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	users, err := os.Open(filepath.Join(r.podDir(s.UID), nsUser.name))
	if err != nil {
		return nil, err
	}
	return &translator{dir: dir, kind: kind, users: users}, nil
}

func (t *translator) close() { t.users.Close() }

// mount makes a mount of what is at a path, and of what is mounted below it,
// with its users translated, and returns where it is. What is mounted below
// keeps the node's users: to the pod they are nobody.
func (t *translator) mount(source string) (string, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", source, err)
	}
	tree := os.NewFile(uintptr(fd), source)
	defer tree.Close()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(t.users.Fd())}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return "", t.cannot(source, fd, err)
	}
	info, err := tree.Stat()
	if err != nil {
		return "", err
	}
	at := filepath.Join(t.dir, t.kind+strconv.Itoa(t.count))
	t.count++
	if info.IsDir() {
		err = os.Mkdir(at, 0o711)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil {
		return "", err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return "", fmt.Errorf("mount %s for the pod's users: %w", source, err)
	}
	return at, nil
}

func (t *translator) cannot(source string, fd int, err error) error {
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("translate the users of %s: %w", source, err)
	}
	kind := "its file system"
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) == nil {
		kind = fmt.Sprintf("its file system (type %#x)", st.Type)
	}
	return fmt.Errorf("hostUsers: the users of %s cannot be translated: this node's kernel has no ID-mapped mounts of %s: %w", source, kind, schema.ErrRefused)
}

// mapVolumes puts mounts that translate in the place of the pod's volumes, where
// the pod has users of its own.
func (r *Runtime) mapVolumes(s *sandboxRecord, id string, mounts []nodeagent.Mount) ([]nodeagent.Mount, error) {
	if s.Users == 0 {
		return mounts, nil
	}
	if err := r.unmap(s.UID, id); err != nil { // of a start that was cut off
		return nil, err
	}
	t, err := r.translator(s, id, "volume")
	if err != nil {
		return nil, err
	}
	defer t.close()
	mapped := slices.Clone(mounts)
	for i := range mapped {
		at, err := t.mount(mapped[i].HostPath)
		if err != nil {
			return nil, fmt.Errorf("the volume at %s: %w", mapped[i].ContainerPath, err)
		}
		mapped[i].HostPath = at
	}
	return mapped, nil
}

// mapRoot makes the container's file system, where the pod has users of its own:
// the image's layers with their users translated, below its own layer, in which
// the node's numbers stand. It returns how the shim mounts it.
func (r *Runtime) mapRoot(s *sandboxRecord, id string, mounts []mount.Mount) ([]mount.Mount, error) {
	if s.Users == 0 {
		return mounts, nil
	}
	t, err := r.translator(s, id, "layer")
	if err != nil {
		return nil, err
	}
	defer t.close()
	if len(mounts) != 1 || mounts[0].Type != "overlay" && mounts[0].Type != "bind" {
		return nil, fmt.Errorf("hostUsers: the users of an image cannot be translated with this snapshotter: %w", schema.ErrRefused)
	}
	at := filepath.Join(t.dir, "root")
	if mounts[0].Type == "bind" { // an image without layers
		if at, err = t.mount(mounts[0].Source); err != nil {
			return nil, err
		}
	} else if err := t.overlay(mounts[0].Options, s.Users, at); err != nil {
		return nil, err
	}
	return []mount.Mount{{Type: "bind", Source: at, Options: []string{"rbind", "rw"}}}, nil
}

func (t *translator) overlay(options []string, first uint32, at string) error {
	var lower, other []string
	for _, o := range options {
		if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
			lower = strings.Split(dirs, ":")
			continue
		}
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			if err := giveTo(dir, first); err != nil {
				return err
			}
		}
		other = append(other, o)
	}
	names := make([]string, len(lower))
	for i, dir := range lower {
		mapped, err := t.mount(dir)
		if err != nil {
			return err
		}
		names[i] = filepath.Base(mapped) // short: all options have one page
	}
	if err := os.Mkdir(at, 0o711); err != nil {
		return err
	}
	data := strings.Join(append(other, "lowerdir="+strings.Join(names, ":")), ",")
	done := make(chan error, 1)
	go onThread(func() {
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Chdir(t.dir); err != nil {
				return err
			}
			return unix.Mount("overlay", at, "overlay", 0, data)
		}()
	})
	err := <-done
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("hostUsers: this node's kernel cannot lay ID-mapped mounts over each other (Linux 5.19 can): %w", schema.ErrRefused)
	}
	if err != nil {
		return fmt.Errorf("mount the container's file system for its users: %w", err)
	}
	for _, name := range names { // the overlay has its own
		if err := unmount(filepath.Join(t.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// giveTo gives a new layer's top directory, which has the owner of the image's,
// to the same user of the range. One that was given is not given again.
func giveTo(dir string, first uint32) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return err
	}
	if st.Uid >= first || st.Uid >= rangeSize || st.Gid >= rangeSize {
		return nil
	}
	return os.Lchown(dir, int(first+st.Uid), int(first+st.Gid))
}

// unmap removes what was made for a container's start. What is running keeps
// its own.
func (r *Runtime) unmap(uid types.UID, id string) error {
	dir := r.mappedDir(uid, id)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if err := unmount(path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err // never reach into a mount that stayed
		}
	}
	return os.Remove(dir)
}

// unmapAll is unmap for every container of the pod.
func (r *Runtime) unmapAll(uid types.UID) error {
	entries, err := os.ReadDir(filepath.Join(r.podDir(uid), "mapped"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := r.unmap(uid, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// lockedOptions are the options of the mount that a path is in. The user
// namespace may take none of them away, so that who asks for others, read-only
// say, must repeat them.
func lockedOptions(path string) []string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return nil
	}
	var list []string
	for _, o := range []struct {
		flag int64
		name string
	}{{unix.ST_NOSUID, "nosuid"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"}, {unix.ST_RDONLY, "ro"}} {
		if int64(st.Flags)&o.flag != 0 {
			list = append(list, o.name)
		}
	}
	return list
}

// keepLocked adds to each mount what it must not lose.
func keepLocked(mounts []specs.Mount) {
	for i := range mounts {
		if mounts[i].Type != "bind" {
			continue
		}
		for _, o := range lockedOptions(mounts[i].Source) {
			mounts[i].Options = slices.DeleteFunc(mounts[i].Options, func(x string) bool { return x == "rw" && o == "ro" })
			if !slices.Contains(mounts[i].Options, o) {
				mounts[i].Options = append(mounts[i].Options, o)
			}
		}
	}
}
