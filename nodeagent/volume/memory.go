package volume

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// ensureMemory mounts a tmpfs at dir unless there is one. limit is in bytes;
// 0 leaves the kernel's own, half of the memory.
func ensureMemory(dir string, limit int64) error {
	if err := ensureDir(dir); err != nil {
		return err
	}
	there, err := isMemory(dir)
	if err != nil || there {
		return err
	}
	options := "mode=0755"
	if limit > 0 {
		options += ",size=" + strconv.FormatInt(limit, 10)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	// noswap, since Linux 6.3, keeps secrets off the disk for good.
	err = unix.Mount("tmpfs", dir, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", flags, options)
	}
	if err != nil {
		return fmt.Errorf("mount memory: %w", err)
	}
	return nil
}

// isMemory says whether dir is the root of a tmpfs of its own.
func isMemory(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Lstat(dir, &here); err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if err := unix.Lstat(filepath.Dir(dir), &above); err != nil {
		return false, fmt.Errorf("look at %s: %w", filepath.Dir(dir), err)
	}
	if here.Dev == above.Dev {
		return false, nil
	}
	var f unix.Statfs_t
	if err := unix.Statfs(dir, &f); err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if f.Type != unix.TMPFS_MAGIC {
		return false, fmt.Errorf("%s is a mount that is not memory", dir)
	}
	return true, nil
}

// machineCapacity is what this machine has.
func machineCapacity() corev1.ResourceList {
	list := corev1.ResourceList{corev1.ResourceCPU: *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI)}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		list[corev1.ResourceMemory] = *resource.NewQuantity(int64(info.Totalram)*int64(info.Unit), resource.BinarySI)
	}
	return list
}
