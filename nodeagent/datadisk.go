package nodeagent

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What must be free of the disk with the agent's records, in per cent, as
// Kubernetes has it: nodefs.available and nodefs.inodesFree.
const (
	leastBytesFree  = 10
	leastInodesFree = 5
)

// dataDiskFault says what the disk with the agent's records lacks; "" when it has
// room, or cannot be asked.
func dataDiskFault(dir string) string {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return ""
	}
	// What only root may use counts neither as free nor as part of it.
	if all := fs.Blocks - fs.Bfree + fs.Bavail; fs.Bavail*100 < all*leastBytesFree {
		return fmt.Sprintf("the disk of %s is short of bytes: %d of %d MiB are free", dir, fs.Bavail*uint64(fs.Bsize)>>20, all*uint64(fs.Bsize)>>20)
	}
	if fs.Files > 0 && fs.Ffree*100 < fs.Files*leastInodesFree {
		return fmt.Sprintf("the disk of %s is short of inodes: %d of %d are free", dir, fs.Ffree, fs.Files)
	}
	return ""
}
