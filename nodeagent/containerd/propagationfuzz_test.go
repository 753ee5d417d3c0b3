package containerd

import "testing"

// FuzzHostMounts: the kernel's table of mounts, in any shape, is read.
func FuzzHostMounts(f *testing.F) {
	f.Add("36 35 98:0 / /a\\040b rw shared:1 master:2 - tmpfs none rw\n37 36 0:1 / / rw - ext4 /dev/x rw", "/a b/c")
	f.Fuzz(func(t *testing.T, table, path string) {
		mounts := hostMounts([]byte(table))
		if err := propagates(mounts, path, true); err == nil && len(mounts) == 0 {
			t.Error("without mounts nothing propagates")
		}
	})
}

func TestHostMountsWithSpaces(t *testing.T) {
	mounts := hostMounts([]byte("1 0 8:1 / / rw - ext4 /dev/x rw\n2 1 0:1 / /none\\040such/dir rw shared:1 - tmpfs none rw\n"))
	if err := propagates(mounts, "/none such/dir/below", true); err != nil {
		t.Error(err)
	}
}
