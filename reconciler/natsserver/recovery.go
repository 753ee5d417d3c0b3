package natsserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pawl-project/pawl/schema"
)

// A nats-server that cannot read a stream says so in its log and goes on
// without it; what opens the store next would then make an empty one in its
// place. So what was on disk is compared with what was recovered.

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

// unrecovered lists the streams that were on disk when they were linked, and that
// the server did not recover.
func unrecovered(ns *server.Server, dir, control string) ([]string, error) {
	onDisk, err := folders(linkedPath(dir))
	if err != nil || len(onDisk) == 0 {
		return nil, err
	}
	info, err := ns.Jsz(&server.JSzOptions{Account: control, Accounts: true, Streams: true})
	if err != nil {
		return nil, fmt.Errorf("nats server: list streams: %w", err)
	}
	have := map[string]bool{}
	for _, a := range info.AccountDetails {
		for _, s := range a.Streams {
			have[s.Name] = true
		}
	}
	return slices.DeleteFunc(onDisk, func(name string) bool { return have[name] }), nil
}

func streamsDir(dir, control string) string {
	return filepath.Join(dir, "jetstream", control, "streams")
}

// seeLog is why, where only the server's log tells.
const seeLog = "the log above says why"

func damaged(dir, stream, why string) error {
	return fmt.Errorf("store %s is damaged: stream %s cannot be read (%s); put it back from a backup, or move %s away and it will be rebuilt from Git and from what the nodes report", dir, stream, why, dir)
}

// setAside moves streams that were not recovered out of the server's way, if
// they hold no message: the server was killed while it made them. If one does
// hold messages that is an error, and nothing is moved.
func setAside(o Options, control string, streams []string) error {
	for _, name := range streams {
		stream := filepath.Join(streamsDir(o.Dir, control), name)
		files, err := blocks(stream)
		if err != nil {
			return err
		}
		for _, b := range files {
			if info, err := os.Stat(filepath.Join(stream, b)); err != nil || info.Size() > 0 {
				return damaged(o.Dir, name, seeLog)
			}
		}
	}
	aside := filepath.Join(o.Dir, "unfinished")
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, name := range streams {
		to := filepath.Join(aside, name+time.Now().UTC().Format("-20060102T150405.000000000"))
		if err := os.Rename(filepath.Join(streamsDir(o.Dir, control), name), to); err != nil {
			return fmt.Errorf("store: %w", err)
		}
		o.Logger.Warn("stream was never finished and holds nothing: moved it aside", "stream", name, "to", to)
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
