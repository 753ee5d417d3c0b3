package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Room for down is really taken, kept by the next start, and given back.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	i := instance{data: filepath.Join(dir, "d"), run: filepath.Join(dir, "r")}
	for _, d := range []string{i.data, i.run} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := i.keepReserve(); err != nil {
			t.Fatal(err)
		}
	}
	for path, size := range map[string]int64{filepath.Join(i.data, reserveName): dataReserve, filepath.Join(i.run, reserveName): runReserve} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Size != size || st.Blocks*512 < size {
			t.Errorf("%s has %d bytes, %d blocks, %v; want %d bytes", path, st.Size, st.Blocks, err, size)
		}
	}
	for range 2 {
		if err := i.spendReserve(); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{i.data, i.run} {
		if _, err := os.Stat(filepath.Join(d, reserveName)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is left in %s: %v", d, err)
		}
	}
}

// A full disk keeps no daemon from starting, for want of this.
func TestReserveOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := (&instance{data: dir, run: dir}).keepReserve(); err != nil {
		t.Error(err)
	}
}
