package nodeagent

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// leastFree and leastInodes are how much of the agent's disk must be free, in
	// per cent, for it not to be under pressure: the kubelet's nodefs.available and
	// nodefs.inodesFree.
	leastFree, leastInodes = 10, 5
	// pressureHold is how long a disk under pressure must have had room before it
	// is not under pressure any more: the kubelet's transition period. A disk that
	// pods fill again at once does not get more of them.
	pressureHold = 5 * time.Minute
)

// A fill is how full a disk is. What only root may use is no part of it.
type fill struct{ bytes, bytesFree, inodes, inodesFree uint64 }

func fillOf(dir string) (fill, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fill{}, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	size := uint64(max(0, fs.Bsize))
	return fill{(fs.Blocks - fs.Bfree + fs.Bavail) * size, fs.Bavail * size, fs.Files, fs.Ffree}, nil
}

// lacks says what of the disk is short; "" for nothing. A file system that does
// not count inodes has enough.
func (f fill) lacks() string {
	switch {
	case f.bytes > 0 && f.bytesFree < f.bytes/100*leastFree:
		return fmt.Sprintf("only %d of %d MiB are free", f.bytesFree>>20, f.bytes>>20)
	case f.inodes > 0 && f.inodesFree < f.inodes/100*leastInodes:
		return fmt.Sprintf("only %d of %d inodes are free", f.inodesFree, f.inodes)
	default:
		return ""
	}
}

// A pressure remembers when the disk was last short. It is for one goroutine.
type pressure struct {
	last time.Time // zero: never, or so long ago that it does not count
	why  string
}

// update says why the disk is under pressure; "" when it is not. lacks is what it
// is short of now.
func (p *pressure) update(lacks string, now time.Time) string {
	if lacks != "" {
		p.last, p.why = now, lacks
		return lacks
	}
	if p.last.IsZero() || now.Sub(p.last) >= pressureHold {
		*p = pressure{}
		return ""
	}
	return fmt.Sprintf("%s at %s; there must be room for %s", p.why, p.last.UTC().Format(time.RFC3339), pressureHold)
}

// diskPressure is the node's condition, by the agent's own disk and by what the
// last collection of images found on theirs.
func (a *agent) diskPressure(now metav1.Time) (corev1.NodeCondition, bool) {
	images, looked := a.diskCondition(now)
	f, err := fillOf(a.cfg.DataDir)
	if err != nil {
		return images, looked
	}
	lacks := f.lacks()
	if lacks == "" && looked && images.Status == corev1.ConditionTrue {
		lacks = images.Message
	}
	c := corev1.NodeCondition{
		Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "AgentHasNoDiskPressure",
		Message: "the node's disks have room", LastHeartbeatTime: now, LastTransitionTime: now,
	}
	if why := a.diskShort.update(lacks, now.Time); why != "" {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "AgentHasDiskPressure", why
		if looked && images.Status == corev1.ConditionTrue {
			c.Reason = images.Reason
		}
	}
	return c, true
}
