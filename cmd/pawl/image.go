package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/nodeagent/containerd"
)

func newImage(cl *cluster) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Work with the images of the node on this machine",
	}
	cmd.AddCommand(newImageImport(cl))
	return cmd
}

func newImageImport(cl *cluster) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE...",
		Short: "Load images from archives, so that pods start without a registry",
		Long: `Load images into the node on this machine from archives as "docker save" or OCI
tools write them ("-" reads standard input). Pods with imagePullPolicy
IfNotPresent (the default for an image with a tag other than latest) or Never
then start without a registry. Run it as root on the node.`,
		Example: `  pawl image import hello.tar
  docker save web:7 | pawl image import -`,
		Args: cobra.MinimumNArgs(1),
		RunE: interruptible(func(ctx context.Context, cmd *cobra.Command, files []string) error {
			c, err := cl.context()
			if err != nil {
				return err
			}
			if c.Containerd.Address == "" {
				return fmt.Errorf("context %s has no node on this machine", c.Name)
			}
			importer, err := containerd.Dial(c.Containerd.Address)
			if err != nil {
				return fmt.Errorf("containerd at %s: %w", c.Containerd.Address, err)
			}
			defer importer.Close()
			for _, f := range files {
				if err := importFile(ctx, cmd, importer, f); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func importFile(ctx context.Context, cmd *cobra.Command, importer *containerd.Importer, file string) error {
	var in io.Reader = cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	names, err := importer.ImportImage(ctx, in)
	if err != nil {
		return fmt.Errorf("import %s: %w", file, err)
	}
	for _, n := range names {
		fmt.Fprintln(cmd.OutOrStdout(), "imported "+n)
	}
	return nil
}
