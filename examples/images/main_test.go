package main

import (
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestWrite reads the archives as an importer does: by the name in them.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	if err := run(t.Context(), dir, "", false, []string{"busybox", "hello:2"}); err != nil {
		t.Fatal(err)
	}
	for image, file := range map[string]string{"busybox": "busybox.tar", "hello:2": "hello-2.tar"} {
		tag, err := name.NewTag(image)
		if err != nil {
			t.Fatal(err)
		}
		read, err := tarball.ImageFromPath(filepath.Join(dir, file), &tag)
		if err != nil {
			t.Fatal(err)
		}
		if layers, err := read.Layers(); err != nil || len(layers) == 0 {
			t.Errorf("%s: %d layers, %v", file, len(layers), err)
		}
	}
}

func TestUsage(t *testing.T) {
	if err := run(t.Context(), t.TempDir(), "", false, nil); err == nil {
		t.Error("no image was named, and nobody complained")
	}
	if err := run(t.Context(), "", "", false, []string{"hello"}); err == nil {
		t.Error("nothing was asked for, and nobody complained")
	}
	if err := run(t.Context(), t.TempDir(), "", false, []string{"no-such-image"}); err == nil {
		t.Error("an image that cannot be built was built")
	}
}
