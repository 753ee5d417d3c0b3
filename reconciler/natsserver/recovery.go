package natsserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pawl-project/pawl/schema"
)

// A nats-server that cannot read a stream says so in its log and goes on
// without it; what opens the store next would then make an empty one in its
// place. So what is on disk is compared with what was recovered.

// lockDir holds dir until the file is closed. Two servers on one directory
// would ruin it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("store %s is in use by another server: stop that one first: %w", dir, schema.ErrUnavailable)
		}
		return nil, fmt.Errorf("lock store %s: %w", dir, err)
	}
	return f, nil
}

// foreignAccounts fails when dir holds streams of an account whose key is not
// ours: the keys were lost, and the streams cannot be read without them.
func foreignAccounts(dir, control string) error {
	accounts, err := folders(filepath.Join(dir, "jetstream"))
	if err != nil {
		return err
	}
	for _, name := range accounts {
		if name == control || !strings.HasPrefix(name, "A") {
			continue
		}
		return fmt.Errorf("store %s was written with other keys (account %s, the key here is that of %s): put the keys back, or move the store away and it will be rebuilt from Git and from what the nodes report", dir, name, control)
	}
	return nil
}

// recovered fails when a stream that is on disk was not recovered.
func recovered(ns *server.Server, dir, control string) error {
	onDisk, err := folders(filepath.Join(dir, "jetstream", control, "streams"))
	if err != nil || len(onDisk) == 0 {
		return err
	}
	info, err := ns.Jsz(&server.JSzOptions{Account: control, Accounts: true, Streams: true})
	if err != nil {
		return fmt.Errorf("nats server: list streams: %w", err)
	}
	have := map[string]bool{}
	for _, a := range info.AccountDetails {
		for _, s := range a.Streams {
			have[s.Name] = true
		}
	}
	for _, name := range onDisk {
		if !have[name] {
			return fmt.Errorf("store %s is damaged: stream %s cannot be read (the log above says why); put it back from a backup, or move %s away and it will be rebuilt from Git and from what the nodes report", dir, name, dir)
		}
	}
	return nil
}

// folders lists the folders in dir; none when dir does not exist.
func folders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
