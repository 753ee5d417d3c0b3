package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemoveData(t *testing.T) {
	for says, arrange := range map[string]func(dir string) error{
		"removed: ": func(dir string) error { return os.Mkdir(dir, 0o700) },
		"emptied, for it is a mount point: ": func(dir string) error {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) //nolint:errcheck // nothing more can be done
			return unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m")
		},
		"emptied, for it is a link: ": func(dir string) error { return os.Symlink(t.TempDir(), dir) },
	} {
		c := &upConfig{}
		c.data = t.TempDir() + "/data"
		if err := arrange(c.data); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.dataMark(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(c.data+"/store/more", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", c.data+"/store/more", "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := c.removeData(&out); err != nil || out.String() != says+c.data+"\n" {
			t.Errorf("%v, %q", err, out.String())
		}
		entries, err := os.ReadDir(c.data)
		if gone := os.IsNotExist(err); gone != (says == "removed: ") || len(entries) > 0 {
			t.Errorf("%s%v, %v", says, entries, err)
		}
	}
}
