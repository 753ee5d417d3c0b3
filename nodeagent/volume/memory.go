package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// ensureMemory mounts a tmpfs at dir unless there is one. limit is in bytes;
// 0 leaves the kernel's own, half of the memory. The mode and the group are those
// of a new one; what its users make of them stays.
func ensureMemory(dir string, limit int64, mode fs.FileMode, group *int64) error {
	if err := ensureDir(dir); err != nil {
		return err
	}
	there, err := isMemory(dir)
	if err != nil || there {
		return err
	}
	bits := mode.Perm()
	options := ""
	if group != nil {
		bits |= unix.S_ISGID | groupMode
		options = fmt.Sprintf(",gid=%d", *group)
	}
	options = fmt.Sprintf("mode=%04o", uint32(bits)) + options
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

// memorySize is what an emptyDir in memory may hold, in bytes: the least of the
// node's memory, the pod's limit, when all its containers have one, and the
// volume's own.
func (v *Volumes) memorySize(p *corev1.Pod, own *resource.Quantity) int64 {
	node := v.capacity()
	size := node.Memory().Value()
	lower := func(to int64) {
		if to > 0 && (size <= 0 || to < size) {
			size = to
		}
	}
	lower(memoryLimit(p))
	if own != nil {
		lower(own.Value())
	}
	return size
}

// memoryLimit is what the pod's containers may use together; 0 when one of them
// has no limit. Init containers that end are not there beside the others.
func memoryLimit(p *corev1.Pod) int64 {
	sum, most := int64(0), int64(0)
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		limit := c.Resources.Limits.Memory().Value()
		if limit == 0 {
			return 0
		}
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sum += limit
			limit = 0
		}
		most = max(most, sum+limit)
	}
	for i := range p.Spec.Containers {
		limit := p.Spec.Containers[i].Resources.Limits.Memory().Value()
		if limit == 0 {
			return 0
		}
		sum += limit
	}
	return max(sum, most)
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
