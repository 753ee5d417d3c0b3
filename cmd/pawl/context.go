package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

// A contextFile is the file from which pawl knows its clusters.
type contextFile struct{ path string }

// contexts is $XDG_CONFIG_HOME/pawl/config.yaml.
func (c *cluster) contexts() contextFile {
	dir := c.env("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(c.env("HOME"), ".config")
	}
	return contextFile{filepath.Join(dir, "pawl", "config.yaml")}
}

func (f contextFile) read() (schema.ClientConfig, error) {
	var config schema.ClientConfig
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return config, fmt.Errorf("no cluster is known here: %s does not exist; `pawld up` writes it: %w", f.path, schema.ErrNotFound)
	}
	if err != nil {
		return config, err
	}
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		return config, fmt.Errorf("%s: %w", f.path, err)
	}
	return config, nil
}

// find is the context of a name, the current one for "".
func (f contextFile) find(name string) (schema.ClientContext, error) {
	config, err := f.read()
	if err != nil {
		return schema.ClientContext{}, err
	}
	x, ok := config.Context(name)
	if !ok {
		return schema.ClientContext{}, fmt.Errorf("%s has no context %q: %w", f.path, name, schema.ErrNotFound)
	}
	return x, nil
}

// replaceFile writes a file that only its owner reads, whole or not at all.
func replaceFile(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	aside, err := os.CreateTemp(filepath.Dir(file), ".pawl-*")
	if err != nil {
		return err
	}
	defer os.Remove(aside.Name())
	if _, err := aside.Write(content); err != nil {
		aside.Close()
		return err
	}
	if err := aside.Close(); err != nil {
		return err
	}
	return os.Rename(aside.Name(), file)
}
