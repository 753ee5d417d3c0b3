package volume

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// Remove unmounts and deletes everything of the pod's volumes. It follows no
// link and enters no mount: what is still mounted makes it fail, with everything
// behind the mount untouched.
func (v *Volumes) Remove(ctx context.Context, uid types.UID) error {
	if err := checkUID(uid); err != nil {
		return err
	}
	run, data := filepath.Join(v.runDir, string(uid)), filepath.Join(v.dataDir, string(uid))
	if err := unmountKnown(run); err != nil {
		return err
	}
	for _, dir := range []string{run, data} {
		err := removeTree(ctx, dir)
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EBUSY) {
			// Something is mounted where nothing of ours is.
			if err = unmountBelow(dir); err == nil {
				err = removeTree(ctx, dir)
			}
		}
		if err != nil {
			return fmt.Errorf("remove the volumes of pod %s: %w", uid, err)
		}
	}
	return nil
}

// unmountKnown unmounts what this package mounts: volumes in memory and pinned
// subPaths. The pins first: they may lie in the volumes' file systems.
func unmountKnown(run string) error {
	var points []string
	for _, pattern := range []string{partsName + "/*/*", "*"} {
		found, err := filepath.Glob(filepath.Join(globQuote(run), pattern))
		if err != nil {
			return err
		}
		points = append(points, found...)
	}
	for _, at := range points {
		if err := unmount(at); err != nil {
			return err
		}
	}
	return nil
}

func globQuote(p string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(p)
}

// unmount takes away every mount at a path; none is no error.
func unmount(at string) error {
	for range maxStacked {
		err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
	return fmt.Errorf("unmount %s: there is always another mount", at)
}

// maxStacked bounds the mounts that lie over each other at one place.
const maxStacked = 1000

// unmountBelow unmounts whatever the kernel says is mounted below a directory,
// the deepest first.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list the mounts: %w", err)
	}
	points := mountPoints(text, dir)
	for _, at := range slices.Backward(points) {
		if err := unmount(at); err != nil {
			return err
		}
	}
	return nil
}

// mountPoints reads the mount points below dir from mountinfo, parents first.
func mountPoints(mountinfo []byte, dir string) []string {
	var points []string
	for s := bufio.NewScanner(bytes.NewReader(mountinfo)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 5 {
			continue
		}
		if at := unescape(fields[4]); strings.HasPrefix(at, dir+"/") {
			points = append(points, at)
		}
	}
	slices.SortFunc(points, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
	return points
}

// unescape turns the kernel's \040 into a space.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
