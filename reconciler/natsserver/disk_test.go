package natsserver

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema/kv"
)

// smallDisk is a file system of some megabytes, which is gone after the test.
func smallDisk(t *testing.T, megabytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Fatalf("mount a small disk (as root): %v", err)
	}
	t.Cleanup(func() {
		// Detached: a server that starts on a full disk leaves a file open.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill leaves no room on a disk, and returns how to make room again.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// The disk fills up while a writer writes, and has room again: the store takes
// writes again without a restart of the process, and lacks nothing that it
// acknowledged.
func TestFullDiskIsOnlyAPause(t *testing.T) {
	dir := smallDisk(t, 64)
	o := options(dir, "127.0.0.1:0")
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	s := startServer(t, o)
	url := s.ClientURL()
	c, store := openStore(t, s)
	var acked []string
	n := 0
	write := func() error {
		var writes []kv.Write
		for j := range 1 + 20*(n%2) { // single writes and batches in turn
			writes = append(writes, kv.Write{Bucket: kv.Desired, Key: fmt.Sprintf("k.%d-%d", n, j), Value: make([]byte, 2000)})
		}
		n++
		revisions, err := store.Commit(t.Context(), writes)
		for i, rev := range revisions {
			if rev > 0 {
				acked = append(acked, writes[i].Key)
			}
		}
		return err
	}
	for round := range 2 {
		for range 20 {
			if err := write(); err != nil {
				t.Fatal(err)
			}
		}
		free := fill(t, dir)
		for deadline := time.Now().Add(60 * time.Second); s.Trouble() == nil; {
			if err := write(); err == nil && time.Now().After(deadline) {
				t.Fatal("the disk is full and the store still takes writes")
			}
		}
		t.Logf("round %d: after %d writes: %v", round, n, s.Trouble())
		free()
		began := time.Now()
		for err := write(); err != nil; err = write() {
			if time.Since(began) > 60*time.Second {
				t.Fatalf("there is room, and the store takes no writes: %v", err)
			}
		}
		t.Logf("round %d: it takes writes again %s after there was room", round, time.Since(began).Round(time.Millisecond))
		if err := s.Trouble(); err != nil {
			t.Errorf("round %d: it takes writes, and says %v", round, err)
		}
	}
	if s.ClientURL() != url {
		t.Errorf("it listens at %s now, and did at %s", s.ClientURL(), url)
	}
	have := map[string]bool{}
	for _, k := range keysOf(t, c) {
		have[k] = true
	}
	for _, k := range acked {
		if !have[k] {
			t.Errorf("%s was acknowledged and is gone", k)
		}
	}
	if _, err := os.Stat(filepath.Join(o.Dir, roomFile)); err == nil {
		t.Error("the file that tries for room was left behind")
	}
}

// Started while its disk is full, the server either starts or says why not, and
// loses nothing by it.
func TestStartOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, 64)
	o := options(dir, "")
	s := startServer(t, o)
	_, store := openStore(t, s)
	for i := range 50 {
		put(t, store, fmt.Sprintf("k.%d", i), "{}")
	}
	free := fill(t, dir)
	s.Close()
	if s, err := Start(t.Context(), o); err != nil {
		t.Logf("on a full disk: %v", err)
	} else {
		s.Close()
	}
	free()
	s = startServer(t, o)
	c, _ := openStore(t, s)
	if keys := keysOf(t, c); len(keys) != 50 {
		t.Errorf("of 50 keys there are %d", len(keys))
	}
}

// Errors that the server tells of, of strangers who knock say, while streams are
// being made are no reason to open the store again: it would cost every connection.
func TestStreamsBeingMadeAreNoTrouble(t *testing.T) {
	for range 8 {
		s := startServer(t, options(t.TempDir(), "127.0.0.1:0"))
		was, stop := s.running(), make(chan struct{})
		var knocking sync.WaitGroup
		knocking.Go(func() {
			for {
				select {
				case <-stop:
					return
				case s.log.alarm <- struct{}{}:
				}
			}
		})
		_, store := openStore(t, s)
		put(t, store, "a.b", "c")
		close(stop)
		knocking.Wait()
		if s.running() != was {
			t.Fatal("the store was opened again")
		}
	}
}
