package containerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// endShims ends the shims that were started for this daemon and that it forgot,
// because it was killed before it had written them down. They are known by the
// address in their arguments, which is this instance's own.
func (d *Daemon) endShims() error {
	pids, err := shims(d.Address(), func(string) bool { return true })
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end shim %d: %w", pid, err)
		}
	}
	return nil
}

// shims lists the processes that are shims of the containerd at the address and
// were started for a container whose id is wanted.
func shims(address string, wanted func(id string) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if isShim(pid, address, wanted) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// isShim says whether a process is one; false when it ended while we looked.
func isShim(pid int, address string, wanted func(id string) bool) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := strings.Split(string(raw), "\x00")
	return isShimOf(args, address) && wanted(argument(args, "-id"))
}

// isShimOf says whether a command line is that of a shim of the containerd at address.
func isShimOf(args []string, address string) bool {
	return strings.HasPrefix(filepath.Base(args[0]), "containerd-shim") && address != "" && sameFile(argument(args, "-address"), address)
}

// sameFile says whether two paths lead to one file, or are one.
func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	one, err1 := os.Stat(a)
	two, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// argument is the one after a flag; "" when there is none.
func argument(args []string, flag string) string {
	if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}
