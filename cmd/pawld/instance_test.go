package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What `pawld down` removes is what lies in an instance's two directories, so
// neither may be anybody else's.
func TestInstancesKeepApart(t *testing.T) {
	dir := t.TempDir()
	at := func(data, run string) *instance {
		return &instance{data: filepath.Join(dir, data), run: filepath.Join(dir, run)}
	}
	if err := os.MkdirAll(filepath.Join(dir, "full", "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		i      *instance
		refuse string
	}{
		{at("a", "r"), ""},
		{at("a", "r"), ""},
		{at("b", "r"), "belongs to the instance in " + filepath.Join(dir, "a")},
		{at("a", "s"), "give --run " + filepath.Join(dir, "r")},
		{at("b", "s"), ""},
		{at("full", "t"), "holds mail"},
		{at("c", "full"), "holds mail"},
		{at("d", "d"), "lies in --run"},
		{at("d/data", "d"), "lies in --run"},
		{at("e", "e/run"), ""},
	} {
		err := step.i.open()
		if step.refuse == "" && err != nil || step.refuse != "" && (err == nil || !strings.Contains(err.Error(), step.refuse)) {
			t.Errorf("data %s, run %s: got %v, want %q", step.i.data, step.i.run, err, step.refuse)
		}
	}
	// After a restart of the machine the run directory is gone, and may be another.
	if err := os.RemoveAll(filepath.Join(dir, "r")); err != nil {
		t.Fatal(err)
	}
	if err := at("a", "u").open(); err != nil {
		t.Error(err)
	}
}

func TestDownWithoutInstanceTouchesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run as root: down refuses others")
	}
	dir := t.TempDir()
	c := &upConfig{instance: instance{data: filepath.Join(dir, "typo"), run: filepath.Join(dir, "run")}}
	if err := os.MkdirAll(filepath.Join(c.run, "other"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := down(t.Context(), c, true, &out); err != nil || !strings.Contains(out.String(), "no instance") {
		t.Errorf("got %v, %q", err, out.String())
	}
	if _, err := os.Stat(filepath.Join(c.run, "other")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.data); err == nil {
		t.Error("down made a directory")
	}
}

// A daemon that was killed while it marked its first directory can start again.
func TestMarkThatWasCutOff(t *testing.T) {
	dir := t.TempDir()
	i := &instance{data: filepath.Join(dir, "data"), run: filepath.Join(dir, "run")}
	if err := os.MkdirAll(i.data, 0o711); err != nil {
		t.Fatal(err)
	}
	cutOff := filepath.Join(i.data, ".pawl-123")
	if err := os.WriteFile(cutOff, []byte("/r"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := i.open(); err != nil {
		t.Error(err)
	}
}
