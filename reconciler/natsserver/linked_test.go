package natsserver

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// write makes files, each with its name below dir as its text.
func write(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		path := filepath.Join(dir, f)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(f), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// A start that is killed at any moment leaves streams that the next one has, as
// they were or as the server left them.
func TestStreamsArePutBack(t *testing.T) {
	dir := t.TempDir()
	streams := streamsDir(dir, "A")
	stream := []string{"meta.inf", "meta.sum", "meta.key", "msgs/1.blk", "msgs/1.key", "msgs/2.blk", "msgs/2.key", "msgs/index.db"}
	names := []string{"whole", "gone", "block", "settings"}
	want := map[string]bool{}
	for _, name := range names {
		write(t, filepath.Join(streams, name), stream...)
		for _, file := range stream {
			want[filepath.Join(streams, name, file)] = true
		}
	}
	write(t, linkedPath(dir)+".tmp/whole", "meta.inf") // linking was cut off before
	if err := link(dir, "A"); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join("msgs", "index.db")
	for _, remove := range []string{"gone", "block/msgs/2.blk", "block/" + index, "settings/meta.inf", "whole/" + index} {
		if err := os.RemoveAll(filepath.Join(streams, remove)); err != nil {
			t.Fatal(err)
		}
	}
	delete(want, filepath.Join(streams, "whole", index)) // the server's own affair
	for range 2 {
		if err := putBack(dir, "A"); err != nil {
			t.Fatal(err)
		}
		if got := tree(t, dir); !maps.Equal(got, want) {
			t.Errorf("there is\n%q\nwant\n%q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
}

// What the server itself was removing when it was killed is not kept from it.
func TestNothingToPutBack(t *testing.T) {
	dir := t.TempDir()
	write(t, streamsDir(dir, "A"), ".deleted/msgs/1.blk")
	for range 2 {
		if err := link(dir, "A"); err != nil {
			t.Fatal(err)
		}
	}
	linked, err := folders(linkedPath(dir))
	if err != nil || len(linked) > 0 {
		t.Errorf("linked: %q, %v", linked, err)
	}
}
