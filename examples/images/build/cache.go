package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// cacheVersion changes with the form of what is kept.
const cacheVersion = 2

// cached returns what was made before from the same things, or makes it. The
// name is for people; what tells versions apart is from.
func cached(ctx context.Context, name string, from []string, make func(context.Context) ([]byte, error)) ([]byte, error) {
	dir, err := cacheDir()
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintln(h, cacheVersion)
	for _, part := range from {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	file := filepath.Join(dir, name+"-"+hex.EncodeToString(h.Sum(nil)[:8]))
	made, err := os.ReadFile(file)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return made, err
	}
	if made, err = make(ctx); err != nil {
		return nil, err
	}
	return made, replace(file, made)
}

// replace writes a file whole or not at all, so that a killed build leaves
// nothing half-made and two builds do not mix.
func replace(file string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return fmt.Errorf("keep what was built: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep what was built: %w", err)
	}
	return os.Rename(f.Name(), file)
}

// cacheDir is $PAWL_IMAGE_CACHE, or pawl/images in the user's cache directory.
func cacheDir() (string, error) {
	dir := os.Getenv("PAWL_IMAGE_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a directory to keep images in (PAWL_IMAGE_CACHE names one): %w", err)
		}
		dir = filepath.Join(user, "pawl", "images")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the directory to keep images in: %w", err)
	}
	return dir, nil
}
