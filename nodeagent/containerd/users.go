package containerd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	continuity "github.com/containerd/continuity/fs"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// maxUserFile bounds an image's /etc/passwd and /etc/group.
const maxUserFile = 1 << 20

// imageFiles is what a start must know of an image's files. It is read when
// first asked for.
type imageFiles struct {
	read func(ctx context.Context) (fileFacts, error)

	mu    sync.Mutex
	facts *fileFacts
}

// fileFacts are never changed.
type fileFacts struct {
	passwd, group []byte // /etc/passwd and /etc/group
	bits32        bool   // it can load 32-bit programs
}

func (u *imageFiles) get(ctx context.Context) (fileFacts, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.facts == nil {
		facts, err := u.read(ctx)
		if err != nil {
			return fileFacts{}, err
		}
		u.facts = &facts
	}
	return *u.facts, nil
}

// loaders32 are the places of loaders for 32-bit programs on a 64-bit machine.
var loaders32 = []string{"lib/ld-linux.so.2", "lib/ld-musl-i386.so.1", "lib/ld-linux-armhf.so.3", "lib/ld-musl-armhf.so.1"}

// readFiles mounts the image, read-only and for a moment: its files may be in
// any of its layers, and links in it must not lead out of it.
func (s *imageStore) readFiles(ctx context.Context, chainID string) (facts fileFacts, err error) {
	sn := s.client.SnapshotService(s.snapshotter)
	// Should this be cut off, the lease ends by itself or with the next run, and the
	// snapshot with it.
	key := "pawl-look-" + rand.Text()
	ctx, done, err := s.client.WithLease(ctx, s.moment()...)
	if err != nil {
		return facts, unavailable("take a lease", err)
	}
	defer func() { err = errors.Join(err, done(context.WithoutCancel(ctx))) }()
	mounts, err := sn.View(ctx, key, chainID)
	if err != nil {
		return facts, unavailable("look into the image", err)
	}
	defer func() { err = errors.Join(err, sn.Remove(context.WithoutCancel(ctx), key)) }()
	err = s.lookInto(mounts, func(dir string) (err error) {
		if facts.passwd, err = readBounded(dir, "etc/passwd"); err != nil {
			return err
		}
		for _, l := range loaders32 {
			path, err := continuity.RootPath(dir, l)
			if err != nil {
				continue // a link that leads in a circle is no loader
			}
			if _, err := os.Lstat(path); err == nil {
				facts.bits32 = true
			}
		}
		facts.group, err = readBounded(dir, "etc/group")
		return err
	})
	return facts, err
}

// lookInto mounts a view of an image for as long as f takes.
func (s *imageStore) lookInto(view []mount.Mount, f func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(s.looks, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dropLook(dir)) }()
	if err := mount.All(view, dir); err != nil {
		return unavailable("look into the image", err)
	}
	return f(dir)
}

// dropLook removes a directory at which an image was looked into, and nothing in it.
func dropLook(dir string) error { return errors.Join(unmount(dir), os.Remove(dir)) }

// dropLooks removes those of a run that was killed.
func dropLooks(in string) error {
	if err := os.MkdirAll(in, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(in)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := dropLook(filepath.Join(in, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// readBounded reads a file of an image; one that is not there is empty. Links
// are followed as they would be within the image.
func readBounded(dir, name string) ([]byte, error) {
	path, err := continuity.RootPath(dir, name)
	if err != nil {
		return nil, fmt.Errorf("the image's /%s: %s: %w", name, oneLine(err), schema.ErrRefused)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the image's /%s is not a regular file: %w", name, schema.ErrRefused)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxUserFile+1))
	if err == nil && len(text) > maxUserFile {
		err = fmt.Errorf("the image's /%s has more than %d bytes: %w", name, maxUserFile, schema.ErrRefused)
	}
	return text, err
}

// userOf says as whom the container's process runs: runAsUser and runAsGroup
// before the image's USER; then the groups the image gives that user, and the
// pod's supplementalGroups and fsGroup.
func userOf(ctx context.Context, image *imageInfo, p *corev1.Pod, c *corev1.Container) (specs.User, error) {
	spec := image.config.User
	uid, gid := runAs(p, c)
	if uid != nil {
		spec = strconv.FormatInt(*uid, 10)
	}
	files, err := image.files.get(ctx)
	if err != nil {
		return specs.User{}, err
	}
	group := files.group
	if policy := groupsPolicy(p); policy == corev1.SupplementalGroupsPolicyStrict {
		group = onlyNames(group)
	}
	found, err := user.GetExecUser(spec, &user.ExecUser{}, bytes.NewReader(files.passwd), bytes.NewReader(group))
	if err != nil {
		return specs.User{}, fmt.Errorf("user %q: %s: %w", spec, oneLine(err), schema.ErrRefused)
	}
	for _, id := range append([]int{found.Uid, found.Gid}, found.Sgids...) {
		if id < 0 || id > math.MaxInt32 {
			return specs.User{}, fmt.Errorf("user %q: the image's /etc/passwd or /etc/group gives it the number %d, which no user or group has: %w", spec, id, schema.ErrRefused)
		}
	}
	if err := checkGroups(p, gid); err != nil {
		return specs.User{}, err
	}
	u := specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	if gid != nil {
		u.GID = uint32(*gid)
	}
	groups := []uint32{u.GID}
	for _, g := range found.Sgids {
		groups = append(groups, uint32(g))
	}
	if sc := p.Spec.SecurityContext; sc != nil {
		for _, g := range sc.SupplementalGroups {
			groups = append(groups, uint32(g))
		}
		if sc.FSGroup != nil {
			groups = append(groups, uint32(*sc.FSGroup))
		}
	}
	slices.Sort(groups)
	u.AdditionalGids = slices.Compact(groups)
	return u, nil
}

// checkGroups refuses numbers that the kernel does not take: cut to its size, some
// are root's.
func checkGroups(p *corev1.Pod, runAs *int64) error {
	var all []int64
	if runAs != nil {
		all = append(all, *runAs)
	}
	if sc := p.Spec.SecurityContext; sc != nil {
		all = append(all, sc.SupplementalGroups...)
		if sc.FSGroup != nil {
			all = append(all, *sc.FSGroup)
		}
	}
	for _, g := range all {
		if g < 0 || g > math.MaxInt32 {
			return fmt.Errorf("group %d: must be between 0 and %d: %w", g, math.MaxInt32, schema.ErrRefused)
		}
	}
	return nil
}

func runAs(p *corev1.Pod, c *corev1.Container) (uid, gid *int64) {
	if sc := p.Spec.SecurityContext; sc != nil {
		uid, gid = sc.RunAsUser, sc.RunAsGroup
	}
	if sc := c.SecurityContext; sc != nil {
		if sc.RunAsUser != nil {
			uid = sc.RunAsUser
		}
		if sc.RunAsGroup != nil {
			gid = sc.RunAsGroup
		}
	}
	return uid, gid
}

func groupsPolicy(p *corev1.Pod) corev1.SupplementalGroupsPolicy {
	if sc := p.Spec.SecurityContext; sc != nil && sc.SupplementalGroupsPolicy != nil {
		return *sc.SupplementalGroupsPolicy
	}
	return corev1.SupplementalGroupsPolicyMerge
}

// onlyNames drops the members from a group file: names can still be looked up,
// and give no user more groups.
func onlyNames(group []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(group) {
		fields := bytes.Split(bytes.TrimRight(line, "\n"), []byte(":"))
		if len(fields) == 4 {
			fields[3] = nil
		}
		out.Write(bytes.Join(fields, []byte(":")))
		out.WriteByte('\n')
	}
	return out.Bytes()
}
