package containerd

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/archive"
	"github.com/pawl-project/pawl/schema/kv"
)

var _ nodeagent.Archiver = (*Runtime)(nil)

// Files of a container are reached through /proc/<pid>/root: there its mounts
// are seen as it sees them. Every path is resolved by the kernel with that root,
// so that a link of the container, however it is changed meanwhile, leads nowhere
// else. What is done is done with the rights on files that the container's own
// user has, by a thread that ends with it: nobody gets by this what a program in
// the container could not.

const (
	// archiveBuffer gathers what is sent at a time, in bytes.
	archiveBuffer = 128 << 10
	// archiveDepth bounds how many directories below each other are packed: each
	// is held open meanwhile, and a container can make any number.
	archiveDepth = 500
	// archiveGrace is how long a copy whose client has gone may go on. A file
	// system that does not answer, such as that of a server that is away, holds its
	// thread for as long as it likes, but not the agent.
	archiveGrace = 5 * time.Second
)

// A containerRoot is a running container's root directory.
type containerRoot struct {
	fd         int
	user       specs.User             // as the host numbers it
	uids, gids []specs.LinuxIDMapping // of its user namespace; none: they are the host's
}

// inContainer calls f on a thread with the rights of the container's user.
func (r *Runtime) inContainer(ctx context.Context, id string, f func(*containerRoot) error) error {
	rec, ok, err := r.record(ctx, id)
	if err != nil {
		return err
	}
	if !ok || rec.ended {
		return kv.StreamErrorf(schema.ErrNotFound, "the container does not run")
	}
	root, err := r.containerRoot(ctx, rec)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go onThread(func() {
		defer unix.Close(root.fd)
		err := root.become()
		if err == nil {
			err = f(root)
		}
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(archiveGrace):
		return fmt.Errorf("the container's files do not answer: %w: %w", context.Cause(ctx), schema.ErrUnavailable)
	}
}

func (r *Runtime) containerRoot(ctx context.Context, rec record) (*containerRoot, error) {
	c, err := r.client.ContainerService().Get(ctx, rec.ID)
	if err != nil {
		return nil, unavailable("read the container", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(c.Spec.GetValue(), &spec); err != nil || spec.Process == nil || spec.Linux == nil {
		return nil, fmt.Errorf("the container's spec is not valid: %w", schema.ErrRefused)
	}
	task, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: rec.ID})
	if err != nil {
		return nil, kv.StreamErrorf(schema.ErrNotFound, "the container does not run")
	}
	pid := int(task.Process.Pid)
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil || !alive(pid, rec.ID) { // it may have ended, and its number be another's
		if err == nil {
			unix.Close(fd)
		}
		return nil, kv.StreamErrorf(schema.ErrNotFound, "the container does not run")
	}
	user := spec.Process.User
	user.UID, user.GID = onHost(user.UID, spec.Linux.UIDMappings), onHost(user.GID, spec.Linux.GIDMappings)
	for i := range user.AdditionalGids {
		user.AdditionalGids[i] = onHost(user.AdditionalGids[i], spec.Linux.GIDMappings)
	}
	return &containerRoot{fd: fd, user: user, uids: spec.Linux.UIDMappings, gids: spec.Linux.GIDMappings}, nil
}

// onHost is a number of a user namespace as the host has it.
func onHost(id uint32, mappings []specs.LinuxIDMapping) uint32 {
	for _, m := range mappings {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + id - m.ContainerID
		}
	}
	return id
}

// nobody owns, in a user namespace, what is of none of its users.
const nobody = 65534

// inside is a number of the host's as a user namespace has it.
func inside(id uint32, mappings []specs.LinuxIDMapping) uint32 {
	for _, m := range mappings {
		if id >= m.HostID && id-m.HostID < m.Size {
			return m.ContainerID + id - m.HostID
		}
	}
	if len(mappings) > 0 {
		return nobody
	}
	return id
}

// owner is a file's owner as the container has it.
func (c *containerRoot) owner(uid, gid uint32) (int, int) {
	return int(inside(uid, c.uids)), int(inside(gid, c.gids))
}

// become gives the thread the rights on files of the container's user. Only the
// thread's: the calls of the standard library would change the whole process.
func (c *containerRoot) become() error {
	if c.user.UID == 0 {
		return nil
	}
	groups := append(slices.Clone(c.user.AdditionalGids), c.user.GID)
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return fmt.Errorf("take the groups of the container's user: %w", e)
	}
	for _, x := range []struct {
		call uintptr
		id   uint32
	}{{unix.SYS_SETFSGID, c.user.GID}, {unix.SYS_SETFSUID, c.user.UID}} {
		_, _, _ = unix.RawSyscall(x.call, uintptr(x.id), 0, 0)
		if now, _, _ := unix.RawSyscall(x.call, ^uintptr(0), 0, 0); uint32(now) != x.id { // the call itself tells of no error
			return fmt.Errorf("take the rights of the container's user: %w", unix.EPERM)
		}
	}
	return nil
}

// open opens a path of the container.
func (c *containerRoot) open(name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode)
	}
	for {
		fd, err := unix.Openat2(c.fd, "."+path.Clean("/"+name), &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) { // EAGAIN: something was renamed meanwhile
			return fd, err
		}
	}
}

// fileFault is an error of a path, for people.
func fileFault(name string, err error) error {
	var e unix.Errno
	class := schema.ErrRefused
	if errors.As(err, &e) {
		err = e
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		class = schema.ErrNotFound
	}
	return kv.StreamErrorf(class, "%s: %s", name, err)
}

// ReadArchive implements nodeagent.Archiver.
func (r *Runtime) ReadArchive(ctx context.Context, id, name string, w io.Writer) error {
	return r.inContainer(ctx, id, func(root *containerRoot) error {
		fd, err := root.open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return fileFault(name, err)
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		buffer := bufio.NewWriterSize(w, archiveBuffer)
		p := &packer{Writer: archive.NewWriter(buffer), ctx: ctx, root: root}
		info, err := f.Stat()
		if err != nil {
			return fileFault(name, err)
		}
		if !info.Mode().IsRegular() && !info.IsDir() {
			return kv.StreamErrorf(schema.ErrRefused, "%s: neither a file nor a directory", name)
		}
		if err := p.add(f, archive.Self); err != nil {
			if ctx.Err() != nil || p.broken {
				return err
			}
			if err := p.Fail(err); err != nil {
				return err
			}
		}
		return errors.Join(p.Close(), buffer.Flush())
	})
}

// A packer packs. Its errors are the reader's, but for what ends the tar.
type packer struct {
	archive.Writer
	ctx    context.Context
	root   *containerRoot
	broken bool // the reader takes no more
	depth  int  // directories that are open
}

// add packs an open file or directory, with what is below.
func (p *packer) add(f *os.File, name string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h, err := archive.Header(info, "")
	if err != nil {
		return err
	}
	h.Name = name
	h.Uid, h.Gid = p.root.owner(uint32(h.Uid), uint32(h.Gid))
	if err := p.WriteHeader(h); err != nil {
		return p.gone(err)
	}
	if info.IsDir() {
		return p.addBelow(f, name)
	}
	n, err := io.Copy(p.Writer, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size { // it became shorter meanwhile
		_, err = io.CopyN(p.Writer, zeros{}, h.Size-n)
	}
	return p.gone(err)
}

// addBelow packs a directory's entries. What cannot be read is left out, and the
// reader is told.
func (p *packer) addBelow(dir *os.File, name string) error {
	if p.depth++; p.depth > archiveDepth {
		p.depth--
		return p.gone(p.Warn("%s: what is below is left out: more than %d directories below each other", name, archiveDepth))
	}
	defer func() { p.depth-- }()
	for {
		names, err := dir.Readdirnames(1000)
		for _, n := range names {
			if err := p.ctx.Err(); err != nil {
				return err
			}
			if err := p.addEntry(int(dir.Fd()), n, path.Join(name, n)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return p.skip(name, err)
		}
	}
}

func (p *packer) addEntry(dir int, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil // it was removed meanwhile
		}
		return p.skip(name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		buffer := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, base, buffer)
		if err != nil {
			return p.skip(name, err)
		}
		uid, gid := p.root.owner(st.Uid, st.Gid)
		return p.gone(p.WriteHeader(&tar.Header{
			Typeflag: tar.TypeSymlink, Name: name, Linkname: string(buffer[:n]), Mode: 0o777,
			Uid: uid, Gid: gid, ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
		}))
	case unix.S_IFREG, unix.S_IFDIR:
	default:
		return p.gone(p.Warn("%s: left out: neither a file, a directory nor a link", name))
	}
	// One name, and no link: it cannot lead elsewhere, whatever it is by now.
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return p.skip(name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() && !info.IsDir() {
		return p.skip(name, errors.Join(err, errors.New("it was replaced meanwhile")))
	}
	return p.add(f, name)
}

func (p *packer) skip(name string, err error) error {
	return p.gone(p.Warn("%s: left out: %s", name, innermost(err)))
}

// gone notes that the reader is.
func (p *packer) gone(err error) error {
	p.broken = p.broken || err != nil
	return err
}

func innermost(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// WriteArchive implements nodeagent.Archiver.
func (r *Runtime) WriteArchive(ctx context.Context, id string, q kv.ArchiveRequest, from io.Reader) error {
	return r.inContainer(ctx, id, func(root *containerRoot) error {
		at, err := root.target(q)
		if err != nil {
			return err
		}
		u := &unpacker{root: root, at: at, keep: !q.NoPreserve && root.user.UID == 0, buffer: make([]byte, archiveBuffer)}
		tar := archive.NewReader(bufio.NewReaderSize(from, archiveBuffer), nil)
		for {
			h, err := tar.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = u.put(h, tar)
			}
			if err != nil {
				return err
			}
		}
		// To its end, or the sender would be cut off while it says goodbye.
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{from}, u.buffer)
		return err
	})
}

// target is where the tar's first entry goes.
func (c *containerRoot) target(q kv.ArchiveRequest) (string, error) {
	to := path.Clean("/" + q.Path)
	fd, err := c.open(to, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		unix.Close(fd)
		return path.Join(to, q.Base), nil
	}
	if strings.HasSuffix(q.Path, "/") || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return "", fileFault(q.Path, err)
	}
	fd, err = c.open(path.Dir(to), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", fileFault(path.Dir(to), err)
	}
	unix.Close(fd)
	return to, nil
}

// An unpacker writes the entries of a tar below a path of a container.
type unpacker struct {
	root   *containerRoot
	at     string
	keep   bool // owners and modes
	buffer []byte
}

// put makes one entry, in place of what is there that is no directory.
func (u *unpacker) put(h *tar.Header, content io.Reader) error {
	name := path.Join(u.at, h.Name)
	if name == "/" {
		return nil // it is there
	}
	dir, err := u.root.open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fileFault(path.Dir(name), err)
	}
	defer unix.Close(dir)
	base := path.Base(name)
	switch h.Typeflag {
	case tar.TypeDir:
		err = u.putDir(dir, base, name, h)
	case tar.TypeSymlink:
		if err = remove(dir, base); err == nil {
			err = unix.Symlinkat(h.Linkname, dir, base)
		}
		if err == nil && u.keep {
			err = unix.Fchownat(dir, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW)
		}
	default:
		return u.putFile(dir, base, name, h, content)
	}
	if err != nil {
		return fileFault(name, err)
	}
	return nil
}

func (u *unpacker) putDir(dir int, base, name string, h *tar.Header) error {
	mode := uint32(h.Mode)&0o777 | 0o700
	err := unix.Mkdirat(dir, base, mode)
	made := err == nil
	if errors.Is(err, unix.EEXIST) {
		fd, err := u.root.open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err == nil {
			unix.Close(fd) // it is one, and stays as it is
			return nil
		}
		if err := remove(dir, base); err != nil {
			return err
		}
		if err := unix.Mkdirat(dir, base, mode); err != nil {
			return err
		}
		made = true
	}
	if !made || !u.keep {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.own(fd, h)
}

// own gives a file the owner and the mode of its entry.
func (u *unpacker) own(fd int, h *tar.Header) error {
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, uint32(h.Mode)&0o7777) // after the owner, which takes setuid away
}

func (u *unpacker) putFile(dir int, base, name string, h *tar.Header, content io.Reader) error {
	fd, err := create(dir, base, uint32(h.Mode)&0o777)
	if err != nil {
		return fileFault(name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{content}, u.buffer); err != nil {
		if innermost(err) == err { //nolint:errorlint // identity: it is no error of the file
			return fmt.Errorf("%s: %w", name, err)
		}
		return fileFault(name, err)
	}
	if u.keep {
		if err := u.own(fd, h); err != nil {
			return fileFault(name, err)
		}
	}
	if err := f.Close(); err != nil {
		return fileFault(name, err)
	}
	return nil
}

// create makes a new file. What cannot be removed because something is mounted
// there is written over, if it is a file.
func create(dir int, base string, mode uint32) (int, error) {
	err := remove(dir, base)
	if errors.Is(err, unix.EBUSY) {
		fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fd, err
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
			err = unix.EBUSY
		}
		if err == nil {
			err = unix.Ftruncate(fd, 0)
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	}
	if err != nil {
		return -1, err
	}
	return unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
}

// remove removes what is there, unless it is a directory. Devices stay, too: a
// copy that goes to one is a mistake.
func remove(dir int, base string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.EISDIR
	case unix.S_IFCHR, unix.S_IFBLK:
		return unix.ENXIO
	}
	if err := unix.Unlinkat(dir, base, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
