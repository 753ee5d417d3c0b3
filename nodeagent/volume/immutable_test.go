package volume

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// hold sets flags as chattr does; false where this process may not, or the file
// system has none: there a container cannot either.
func hold(t *testing.T, path string, flag int) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	now, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(now)|flag)
	}
	if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatal(err)
	}
	return err == nil
}

// TestRemoveWhatIsHeld: files that the kernel keeps from being removed, because a
// container told it to, go with the pod.
func TestRemoveWhatIsHeld(t *testing.T) {
	f := newFixture(t)
	p := newPod("u1", emptyDir("v", corev1.EmptyDirVolumeSource{}))
	f.setup(p)
	dir := f.mounted(p)["/v"].HostPath
	deep := filepath.Join(dir, "held", "deep")
	if err := errors.Join(os.MkdirAll(deep, 0o755), os.WriteFile(filepath.Join(deep, "file"), nil, 0o600), os.WriteFile(filepath.Join(dir, "log"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.WriteFile(outside, nil, 0o600), os.Symlink(outside, filepath.Join(deep, "link"))); err != nil {
		t.Fatal(err)
	}
	const immutable, appendOnly = 0x10, 0x20
	held := hold(t, outside, immutable)
	t.Cleanup(func() {
		if g, err := os.Open(outside); err == nil {
			if held != dropFlags(int(g.Fd())) {
				t.Error("a file that is not the pod's has lost its flags")
			}
			g.Close()
		}
	})
	hold(t, filepath.Join(dir, "log"), appendOnly)
	hold(t, filepath.Join(deep, "file"), immutable)
	hold(t, deep, immutable)
	hold(t, filepath.Join(dir, "held"), appendOnly)
	hold(t, dir, immutable)
	f.remove(p)
	if _, err := os.Lstat(outside); err != nil {
		t.Errorf("what a link leads to: %v", err)
	}
}
