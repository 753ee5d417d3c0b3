package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

// A contextWriter leaves on disk what people's tools need to reach this
// instance: pawl's own context, a kubeconfig, a context for the nats CLI, and a
// file that a Git clone includes so that its pushes carry the token.
type contextWriter struct {
	home string // $XDG_CONFIG_HOME
	log  *slog.Logger
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

// write names the context and writes it for every tool.
func (w contextWriter) write(c schema.ClientContext) (schema.ClientContext, error) {
	config, err := w.readPawl()
	if err != nil {
		return c, err
	}
	evicted := w.name(&config, &c)
	config.Set(c)
	if evicted != nil {
		config.Set(*evicted)
		if err := w.writeTools(*evicted); err != nil {
			w.log.Warn("the other instance's tools must be set up by its next start", "error", err)
		}
	}
	return c, errors.Join(w.writePawl(config), w.writeTools(c), w.writeKubeconfig(config))
}

// mainContext is the name of the context that documents and people use.
const mainContext = "pawl"

// name gives c its name. The first instance of a user is called pawl, and the
// default one always; another one is called by its instance, so that it does not
// take the first one's place in silence. A context whose token is gone has no
// instance any more. When the default instance comes second, the other's
// context is returned under its new name.
func (w contextWriter) name(config *schema.ClientConfig, c *schema.ClientContext) (evicted *schema.ClientContext) {
	c.Name = mainContext
	if c.Instance != mainContext {
		for _, x := range config.Contexts {
			if x.TokenFile == c.TokenFile {
				c.Name = x.Name
				return nil
			}
		}
	}
	holder, taken := config.Context(mainContext)
	if !taken || holder.TokenFile == c.TokenFile {
		return nil
	}
	if _, err := os.Stat(holder.TokenFile); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if c.Instance != mainContext {
		c.Name = c.Instance
		w.log.Info("another instance has the context pawl, so this one's is named by its instance", "context", c.Name)
		return nil
	}
	holder.Name = cmp.Or(holder.Instance, holder.Containerd.Instance, "pawl-before")
	w.log.Warn("the context pawl is the default instance's; the one it was has a new name", "context", holder.Name)
	return &holder
}

func (w contextWriter) pawlFile() string { return filepath.Join(w.home, "pawl", "config.yaml") }

func (w contextWriter) readPawl() (schema.ClientConfig, error) {
	var config schema.ClientConfig
	text, err := os.ReadFile(w.pawlFile())
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return config, err
	}
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		return config, fmt.Errorf("%s: %w; mend or remove it", w.pawlFile(), err)
	}
	return config, nil
}

func (w contextWriter) writePawl(config schema.ClientConfig) error {
	out, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return replaceFile(w.pawlFile(), out)
}

// writeTools writes what is in files of one context each.
func (w contextWriter) writeTools(c schema.ClientContext) error {
	return errors.Join(w.writeNATS(c), w.writeGit(c))
}

// writeNATS writes a context as the nats CLI keeps them.
func (w contextWriter) writeNATS(c schema.ClientContext) error {
	out, err := json.MarshalIndent(map[string]string{
		"description": "Pawl's store: nats --context " + c.Name + " kv ls",
		"url":         c.NATS.URL,
		"creds":       c.NATS.CredsFile,
	}, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(w.home, "nats", "context", c.Name+".json"), append(out, '\n'))
}

// gitInclude is the file of a context that clones include.
func (w contextWriter) gitInclude(context string) string {
	if context == mainContext {
		return filepath.Join(w.home, "pawl", "gitconfig")
	}
	return filepath.Join(w.home, "pawl", "gitconfig-"+context)
}

// writeGit writes the file that a clone includes: Git then sends the token with
// its first request, and the token stands in no command line and no URL.
func (w contextWriter) writeGit(c schema.ClientContext) error {
	token, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by pawld up. Use: git clone -c include.path=%s %s\n", w.gitInclude(c.Name), c.Repository)
	fmt.Fprintf(&b, "[http %s]\n\textraHeader = Authorization: Bearer %s\n", gitQuoted(c.Server), bytes.TrimSpace(token))
	if c.CAFile != "" {
		fmt.Fprintf(&b, "\tsslCAInfo = %s\n", gitQuoted(c.CAFile))
	}
	return replaceFile(w.gitInclude(c.Name), []byte(b.String()))
}

// gitQuoted is a value as Git's configuration takes any.
func gitQuoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// asidePrefix begins the name of a file that is being written.
const asidePrefix = ".pawl-"

// replaceFile writes a file that only its owner reads, whole or not at all. One
// that is as it is to be stays: that needs no room, so that a daemon whose disk is
// full can be started again.
func replaceFile(file string, content []byte) error {
	if info, err := os.Lstat(file); err == nil && info.Mode() == 0o600 && info.Size() == int64(len(content)) {
		if there, err := os.ReadFile(file); err == nil && bytes.Equal(there, content) {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	aside, err := os.CreateTemp(filepath.Dir(file), asidePrefix+"*")
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
