package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A file that says already what it is to say is not written again: on a full disk
// that would fail, and the daemon could not be started again.
func TestReplaceFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	look := func() os.FileInfo {
		t.Helper()
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	put := func(text string) os.FileInfo {
		t.Helper()
		if err := replaceFile(file, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != text || look().Mode() != 0o600 {
			t.Fatalf("it holds %q, mode %v: %v", got, look().Mode(), err)
		}
		return look()
	}
	first := put("one")
	if !os.SameFile(first, put("one")) {
		t.Error("it is written again")
	}
	if os.SameFile(first, put("two")) {
		t.Error("it is not replaced as a whole")
	}
	second := look()
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if os.SameFile(second, put("two")) {
		t.Error("others read it")
	}
}
