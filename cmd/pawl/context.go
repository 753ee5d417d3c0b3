package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

func newContext(c *cluster, s genericiooptions.IOStreams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Choose between the clusters that are known here",
		Long: `List the clusters that are known here, and choose between them. They stand in
$XDG_CONFIG_HOME/pawl/config.yaml, where "pawld up" writes the one it starts; the
file says where tokens lie, and holds none. Which one a command uses is said by
--context, by the environment's PAWL_CONTEXT, or is the current one (*).`,
		Example: `  pawl context
  pawl context use staging
  pawl get pods --context staging`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return c.listContexts(s) },
	}
	cmd.AddCommand(
		c.contextVerb("use NAME", "Make a context the current one", 1, func(config *schema.ClientConfig, args []string) (string, error) {
			config.Current = args[0]
			return "context " + args[0] + " is the current one now", nil
		}, s),
		c.contextVerb("remove NAME", "Forget a context; the cluster itself is not touched", 1, func(config *schema.ClientConfig, args []string) (string, error) {
			config.Contexts = slices.DeleteFunc(config.Contexts, func(x schema.ClientContext) bool { return x.Name == args[0] })
			if config.Current == args[0] {
				config.Current = ""
			}
			return "context " + args[0] + " removed", nil
		}, s),
		c.contextVerb("rename OLD NEW", "Give a context another name", 2, renameContext, s),
		newContextShow(c, s),
	)
	return cmd
}

// contextVerb is a command that changes the file. Its first argument names a
// context that must be there.
func (c *cluster) contextVerb(use, short string, args int, change func(*schema.ClientConfig, []string) (string, error), s genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ExactArgs(args),
		RunE: func(_ *cobra.Command, args []string) error {
			f := c.contexts()
			config, err := f.read()
			if err != nil {
				return err
			}
			if args[0] == "" { // to pick that would be the current one
				return plain{"a context has a name: see pawl context", schema.ErrRefused}
			}
			if _, err := f.pick(config, args[0]); err != nil {
				return err
			}
			said, err := change(&config, args)
			if err != nil {
				return err
			}
			if err := f.write(config); err != nil {
				return err
			}
			fmt.Fprintln(s.Out, said)
			return nil
		},
		ValidArgsFunction: c.completeContext,
	}
}

func renameContext(config *schema.ClientConfig, args []string) (string, error) {
	before, after := args[0], args[1]
	if after == "" {
		return "", errors.New("a context needs a name")
	}
	if _, taken := config.Context(after); taken {
		return "", plain{fmt.Sprintf("there is a context %s already", after), schema.ErrConflict}
	}
	for i := range config.Contexts {
		if config.Contexts[i].Name == before {
			config.Contexts[i].Name = after
		}
	}
	if config.Current == before {
		config.Current = after
	}
	return "context " + before + " is called " + after + " now", nil
}

func newContextShow(c *cluster, s genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:   "show [NAME]",
		Short: "Show a context in full; without a name, the one that commands use",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := c.flags.context
			if len(args) == 1 {
				name = args[0]
			}
			x, err := c.contexts().find(name)
			if err != nil {
				return err
			}
			return printData(s.Out, "yaml", x)
		},
		ValidArgsFunction: c.completeContext,
	}
}

func (c *cluster) listContexts(s genericiooptions.IOStreams) error {
	config, err := c.contexts().read()
	if err != nil {
		return err
	}
	used := c.flags.context
	if used == "" {
		used = config.Current
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CURRENT\tNAME\tSERVER\tREPOSITORY")
	for _, x := range config.Contexts {
		mark := ""
		if x.Name == used {
			mark = "*"
		}
		fmt.Fprintln(w, strings.Join([]string{mark, printable(x.Name), printable(x.Server), printable(x.Repository)}, "\t"))
	}
	return w.Flush()
}

func (c *cluster) completeContext(_ *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if config, err := c.contexts().read(); err == nil && len(args) == 0 {
		for _, x := range config.Contexts {
			if strings.HasPrefix(x.Name, toComplete) {
				names = append(names, x.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

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
		return config, plain{"no cluster is known here: there is no " + f.path + ". Start one with: pawld up", schema.ErrNotFound}
	}
	if err != nil {
		return config, err
	}
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		return config, fmt.Errorf("%s: %w", f.path, err)
	}
	return config, nil
}

func (f contextFile) write(config schema.ClientConfig) error {
	text, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return replaceFile(f.path, text)
}

// find is the context of a name, the current one for "".
func (f contextFile) find(name string) (schema.ClientContext, error) {
	config, err := f.read()
	if err != nil {
		return schema.ClientContext{}, err
	}
	return f.pick(config, name)
}

func (f contextFile) pick(config schema.ClientConfig, name string) (schema.ClientContext, error) {
	x, ok := config.Context(name)
	switch {
	case ok:
		return x, nil
	case name == "" && config.Current == "":
		return x, plain{"there is no current context; choose one with: pawl context use NAME (" + f.names(config) + ")", schema.ErrNotFound}
	case name == "":
		name = config.Current
	}
	return x, plain{fmt.Sprintf("there is no context %q in %s (%s)", name, f.path, f.names(config)), schema.ErrNotFound}
}

func (f contextFile) names(config schema.ClientConfig) string {
	if len(config.Contexts) == 0 {
		return "there are none"
	}
	var names []string
	for _, x := range config.Contexts {
		names = append(names, x.Name)
	}
	return "there are: " + strings.Join(names, ", ")
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
