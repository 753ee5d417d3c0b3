package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// To take an instance down some things must be written: a containerd that died
// is started, and writes down what it forgets. Room for that is kept while there
// is some, in a file of each of the instance's directories that down removes
// before anything else.
const (
	reserveName = ".pawl-reserve"
	dataReserve = 4 << 20   // bytes; containerd's database grows by less
	runReserve  = 256 << 10 // bytes; of what is memory, mostly
)

// keepReserve makes the files. A disk that is full already is no fault here:
// the daemon says so elsewhere, and the next start makes them.
func (i *instance) keepReserve() error {
	for dir, size := range map[string]int64{i.data: dataReserve, i.run: runReserve} {
		err := reserve(filepath.Join(dir, reserveName), size)
		if err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("keep room for `pawld down`: %w", err)
		}
	}
	return nil
}

// reserve makes a file that has its room on the disk, without writing it.
func reserve(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
}

// spendReserve gives the room back.
func (i *instance) spendReserve() error {
	for _, dir := range []string{i.data, i.run} {
		if err := os.Remove(filepath.Join(dir, reserveName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
