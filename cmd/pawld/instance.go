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

	defaultConfigFile = "/etc/pawl/pawld.yaml"
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
	f.String("config", defaultConfigFile, "file of settings: flag names without dashes in front, as YAML")
}

// open makes the directories absolute, makes them, and marks each with the
// other. `pawld down` ends and removes what is in them, so an instance takes no
// directory that another one or somebody else uses.
func (i *instance) open() error {
	if err := i.absolute(); err != nil {
		return err
	}
	if strings.HasPrefix(i.data+"/", strings.TrimSuffix(i.run, "/")+"/") {
		return fmt.Errorf("--data %s lies in --run %s, which `pawld down` empties: choose another", i.data, i.run)
	}
	if run := markOf(i.dataMark()); run != "" && run != i.run && markOf(filepath.Join(run, markName)) == i.data {
		return fmt.Errorf("the instance in %s runs in %s: give --run %s", i.data, run, run)
	}
	if data := markOf(i.runMark()); data != "" && data != i.data {
		return fmt.Errorf("%s belongs to the instance in %s: choose another --run, or give --data %s", i.run, data, data)
	}
	for _, m := range []struct{ mark, other string }{{i.dataMark(), i.run}, {i.runMark(), i.data}} {
		if err := claim(m.mark, m.other); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(i.data, "keys"), 0o700)
}

func (i *instance) absolute() (err error) {
	if i.data, err = filepath.Abs(i.data); err != nil {
		return err
	}
	i.run, err = filepath.Abs(i.run)
	return err
}

// markName is the file in each of an instance's directories that names the other one.
const markName = ".pawl-instance"

func (i *instance) dataMark() string { return filepath.Join(i.data, markName) }
func (i *instance) runMark() string  { return filepath.Join(i.run, markName) }

// markOf reads a mark; "" when there is none.
func markOf(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// claim makes the mark's directory and the mark. Without a mark the directory
// must be empty, but for what a file system has at its root, and for a mark that
// was not finished.
func claim(mark, other string) error {
	dir := filepath.Dir(mark)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make the instance's directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	_, err = os.Lstat(mark)
	for _, e := range entries {
		unfinished := e.Type().IsRegular() && strings.HasPrefix(e.Name(), asidePrefix)
		if err != nil && e.Name() != "lost+found" && !unfinished {
			return fmt.Errorf("%s holds %s and is not marked as a Pawl instance's: choose an empty or a new directory", dir, e.Name())
		}
	}
	if markOf(mark) == other {
		return nil
	}
	return replaceFile(mark, []byte(other+"\n"))
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

func (i *instance) doorFile() string      { return filepath.Join(i.data, "door.json") }
func (i *instance) pidFile() string       { return filepath.Join(i.run, "pawld.pid") }
func (i *instance) natsCredsFile() string { return filepath.Join(i.data, "keys", "operator.creds") }

// containerdFile names the containerd that the containers are in; empty: the private one.
func (i *instance) containerdFile() string { return filepath.Join(i.data, "containerd.address") }

// lock makes this process the instance's only daemon until it ends, and leaves
// its pid for `pawld down`.
func (i *instance) lock() (release func(), err error) {
	release, err = i.hold()
	if err != nil {
		return nil, err
	}
	if err := i.notePID(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// hold is lock without the pid, which takes no room on a disk.
func (i *instance) hold() (release func(), err error) {
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
	return func() {
		os.Remove(i.pidFile())
		f.Close()
	}, nil
}

func (i *instance) notePID() error {
	return os.WriteFile(i.pidFile(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644)
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
