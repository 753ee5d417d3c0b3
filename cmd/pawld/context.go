package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

// A contextWriter leaves on disk what people's tools need to reach this
// instance: pawl's own context, a context for the nats CLI, and a file that a
// Git clone includes so that its pushes carry the token.
type contextWriter struct {
	home  string // $XDG_CONFIG_HOME
	name  string // of the context
	token string
}

// configHome is $XDG_CONFIG_HOME, or its default below the user's home.
func configHome() (string, error) {
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("neither XDG_CONFIG_HOME nor HOME is set, so no client context is written: %w", err)
	}
	return filepath.Join(home, ".config"), nil
}

func (w contextWriter) write(c schema.ClientContext) error {
	return errors.Join(w.writePawl(c), w.writeNATS(c), w.writeGit(c))
}

func (w contextWriter) gitInclude() string {
	return filepath.Join(w.home, "pawl", "gitconfig")
}

func (w contextWriter) writePawl(c schema.ClientContext) error {
	file := filepath.Join(w.home, "pawl", "config.yaml")
	var config schema.ClientConfig
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := yaml.UnmarshalStrict(text, &config); err != nil {
			return fmt.Errorf("%s: %w; mend or remove it", file, err)
		}
	}
	config.Set(c)
	out, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return replaceFile(file, out)
}

// writeNATS writes a context as the nats CLI keeps them.
func (w contextWriter) writeNATS(c schema.ClientContext) error {
	out, err := json.MarshalIndent(map[string]string{
		"description": "Pawl's store: nats --context " + w.name + " kv ls",
		"url":         c.NATS.URL,
		"creds":       c.NATS.CredsFile,
	}, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(w.home, "nats", "context", w.name+".json"), append(out, '\n'))
}

// writeGit writes the file that a clone includes: Git then sends the token with
// its first request, and the token stands in no command line and no URL.
func (w contextWriter) writeGit(c schema.ClientContext) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by pawld up. Use: git clone -c include.path=%s %s\n", w.gitInclude(), c.Repository)
	fmt.Fprintf(&b, "[http %q]\n\textraHeader = Authorization: Bearer %s\n", c.Server, w.token)
	return replaceFile(w.gitInclude(), []byte(b.String()))
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
