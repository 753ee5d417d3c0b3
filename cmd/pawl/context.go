package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// clientContext is the context that --context names.
func clientContext(cmd *cobra.Command) (schema.ClientContext, error) {
	name, err := cmd.Flags().GetString("context")
	if err != nil {
		return schema.ClientContext{}, err
	}
	file, err := configFile()
	if err != nil {
		return schema.ClientContext{}, err
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return schema.ClientContext{}, fmt.Errorf("no cluster is known here: %s does not exist; `pawld up` writes it", file)
	}
	if err != nil {
		return schema.ClientContext{}, err
	}
	var config schema.ClientConfig
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		return schema.ClientContext{}, fmt.Errorf("%s: %w", file, err)
	}
	c, ok := config.Context(name)
	if !ok {
		return schema.ClientContext{}, fmt.Errorf("%s has no context %q", file, name)
	}
	return c, nil
}

func configFile() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "pawl", "config.yaml"), nil
}

// connect opens the store of a context, for reading.
func connect(ctx context.Context, c schema.ClientContext) (*kv.Conn, error) {
	creds, err := kv.ReadCredsFile(c.NATS.CredsFile)
	if err != nil {
		return nil, fmt.Errorf("credentials of context %s: %w", c.Name, err)
	}
	conn, err := kv.Connect(ctx, kv.ConnOptions{URL: c.NATS.URL, Credentials: creds, Name: "pawl"})
	if err != nil {
		return nil, fmt.Errorf("the cluster of context %s does not answer at %s; is `pawld up` running? (%w)", c.Name, c.NATS.URL, err)
	}
	return conn, nil
}
