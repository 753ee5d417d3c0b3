package volume

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// A container that has the capability LINUX_IMMUTABLE can have the kernel refuse
// that a file is removed (chattr +i and +a). That must not keep its pod, and the
// pod's name, on the node for ever.

// holdFlags of a file or directory keep it, or what is in it, from being removed.
const holdFlags = 0x10 | 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL

// release takes such flags from what is to be removed, and from the directory it
// is in when that is the container's too. It says whether there were any.
func (r *remover) release(parent int, name string) bool {
	there := r.top >= 0 && dropFlags(parent)
	at, err := unix.Openat2(parent, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return there
	}
	defer unix.Close(at)
	// Only these have flags, and to open a device may do something.
	var stat unix.Stat_t
	if err := unix.Fstat(at, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG && stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return there
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return there
	}
	defer unix.Close(fd)
	return dropFlags(fd) || there
}

// dropFlags says whether an open file had such flags, and has them no more.
func dropFlags(fd int) bool {
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&holdFlags == 0 {
		return false
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags&^holdFlags)) == nil
}
