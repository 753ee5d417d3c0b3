package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemoveData(t *testing.T) {
	for says, mounted := range map[string]bool{"removed: ": false, "emptied, for it is a mount point: ": true} {
		c := &upConfig{}
		c.data = t.TempDir() + "/data"
		if err := os.Mkdir(c.data, 0o700); err != nil {
			t.Fatal(err)
		}
		if mounted {
			if err := unix.Mount("tmpfs", c.data, "tmpfs", 0, "size=1m"); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(c.data, unix.MNT_DETACH) //nolint:errcheck // nothing more can be done
		}
		if err := os.WriteFile(c.dataMark(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(c.data+"/store/more", 0o700); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := c.removeData(&out); err != nil || out.String() != says+c.data+"\n" {
			t.Errorf("%v, %q", err, out.String())
		}
		entries, err := os.ReadDir(c.data)
		if left := err == nil; left != mounted || len(entries) > 0 {
			t.Errorf("left: %v, %v", entries, err)
		}
	}
}
