package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

const (
	defaultDataDir = "/var/lib/pawl"
	defaultRunDir  = "/run/pawl"
)

// An instance is one Pawl on this machine: all of its state hangs below its two
// directories, so that several can share a machine.
type instance struct {
	data string // survives the machine's restart
	run  string // sockets, pins and mounts
}

func (i *instance) flags(f *pflag.FlagSet) {
	f.StringVar(&i.data, "data", defaultDataDir, "directory of what outlives a restart of the machine")
	f.StringVar(&i.run, "run", defaultRunDir, "directory of sockets and of what need not outlive it")
	f.String("config", "/etc/pawl/pawld.yaml", "file of settings: flag names without dashes in front, as YAML")
}

// open makes the directories absolute and makes them.
func (i *instance) open() error {
	for _, dir := range []*string{&i.data, &i.run} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
		if err := os.MkdirAll(abs, 0o711); err != nil {
			return fmt.Errorf("make the instance's directory: %w", err)
		}
	}
	return os.MkdirAll(filepath.Join(i.data, "keys"), 0o700)
}

// name tells the instances of one machine apart in the names of links, tables
// and labels; it is the same for the same data directory.
func (i *instance) name() string {
	if i.data == defaultDataDir {
		return "pawl"
	}
	sum := sha256.Sum256([]byte(i.data))
	return "pawl" + hex.EncodeToString(sum[:4])
}

func (i *instance) tokenFile() string     { return filepath.Join(i.data, "token") }
func (i *instance) pidFile() string       { return filepath.Join(i.run, "pawld.pid") }
func (i *instance) natsCredsFile() string { return filepath.Join(i.data, "keys", "operator.creds") }

// lock makes this process the instance's only daemon until it ends, and leaves
// its pid for `pawld down`.
func (i *instance) lock() (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(i.data, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another pawld runs on %s (pid %s); stop it, or choose another --data", i.data, i.pid())
		}
		return nil, fmt.Errorf("lock %s: %w", i.data, err)
	}
	if err := os.WriteFile(i.pidFile(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		f.Close()
		return nil, err
	}
	return func() {
		os.Remove(i.pidFile())
		f.Close()
	}, nil
}

// locked says whether a daemon holds the instance.
func (i *instance) locked() (bool, error) {
	f, err := os.OpenFile(filepath.Join(i.data, "lock"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return errors.Is(err, unix.EWOULDBLOCK), nil
}

// pid is what the pid file says; "?" when there is none.
func (i *instance) pid() string {
	text, err := os.ReadFile(i.pidFile())
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(text))
}
