package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/containerd"
)

func newImage(cl *cluster) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Work with the images of the node on this machine",
		Long: `Work with the images of the node on this machine, as root. They are those of the
context's containerd. What nothing uses is removed when the disk fills up, but
not within an hour after it was pulled or imported by hand.`,
	}
	cmd.AddCommand(newImageList(cl), newImagePull(cl), newImageImport(cl), newImageRemove(cl), newImageInspect(cl))
	return cmd
}

// imageVerb is a command that works on the node's images.
func imageVerb(cl *cluster, run func(context.Context, *cobra.Command, *containerd.Importer, []string) error) func(*cobra.Command, []string) error {
	return interruptible(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		c, err := cl.context()
		if err != nil {
			return err
		}
		if c.Containerd.Address == "" {
			return fmt.Errorf("context %s has no node on this machine", c.Name)
		}
		node, err := containerd.Dial(c.Containerd.Address, c.Containerd.Instance)
		if err != nil {
			return fmt.Errorf("containerd at %s: %w", c.Containerd.Address, err)
		}
		defer node.Close()
		return run(ctx, cmd, node, args)
	})
}

func newImageList(cl *cluster) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the images",
		Long: `List the images: SIZE is that of the layers for this platform as they were pulled,
CREATED when the image says it was built, IN USE how many containers there are of it.`,
		Example: `  pawl image ls
  pawl image ls -o json`,
		Args: cobra.NoArgs,
		RunE: imageVerb(cl, func(ctx context.Context, cmd *cobra.Command, node *containerd.Importer, _ []string) error {
			list, err := node.Images(ctx)
			if err != nil {
				return err
			}
			return printImages(cmd.OutOrStdout(), list, output, time.Now())
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Output format: wide, json or yaml")
	return cmd
}

func printImages(out io.Writer, list []containerd.NodeImage, output string, now time.Time) error {
	switch output {
	case "", "wide":
	case "json", "yaml":
		return printData(out, output, list)
	default:
		return oneOf(output, "wide", "json", "yaml")
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	head := []string{"IMAGE", "ID", "SIZE", "CREATED", "IN USE"}
	if output == "wide" {
		head = append(head, "PLATFORM", "LAST USED", "BY")
	}
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, img := range list {
		row := []string{printable(img.Name), shortID(img.ID), imageSize(img), ago(img.Created, now), imageUse(img)}
		if output == "wide" {
			row = append(row, orNone(printable(img.Platform)), ago(img.LastUsed, now), orNone(printable(strings.Join(img.UsedBy, " "))))
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// shortID is as much of an ID as people tell images apart by.
func shortID(id string) string {
	_, hex, _ := strings.Cut(id, ":")
	return hex[:min(12, len(hex))]
}

func imageSize(img containerd.NodeImage) string {
	if !img.Whole {
		return "<incomplete>"
	}
	return nodeagent.Bytes(img.Size).String()
}

func imageUse(img containerd.NodeImage) string {
	if len(img.UsedBy) == 0 {
		return "-"
	}
	return strconv.Itoa(len(img.UsedBy))
}

func ago(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	return duration.HumanDuration(now.Sub(*t)) + " ago"
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
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
		RunE: imageVerb(cl, func(ctx context.Context, cmd *cobra.Command, node *containerd.Importer, files []string) error {
			for _, f := range files {
				if err := importFile(ctx, cmd, node, f); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func importFile(ctx context.Context, cmd *cobra.Command, importer *containerd.Importer, file string) error {
	var in io.Reader = input{ctx, cmd.InOrStdin()}
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

func newImageRemove(cl *cluster) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm IMAGE...",
		Aliases: []string{"remove"},
		Short:   "Remove images, by name or by ID",
		Long: `Remove images, by name or by as much of the ID as tells it from others, and free
their space. One of which there are containers is kept, unless forced: they then go
on, and the image is pulled again when they are restarted.`,
		Example: `  pawl image rm web:6
  pawl image rm 3fa81c2d9e10`,
		Args: cobra.MinimumNArgs(1),
		RunE: imageVerb(cl, func(ctx context.Context, cmd *cobra.Command, node *containerd.Importer, names []string) error {
			for _, name := range names {
				img, err := node.RemoveImage(ctx, name, force)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "removed "+img.Name)
			}
			return nil
		}),
		ValidArgsFunction: completeImages(cl),
	}
	cmd.Flags().BoolVar(&force, "force", false, "Remove the image though containers use it")
	return cmd
}

func newImageInspect(cl *cluster) *cobra.Command {
	output := "json"
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Show an image in full: its configuration, its layers, who uses it",
		Example: `  pawl image inspect nginx:1.27
  pawl image inspect 3fa81c2d9e10 -o yaml`,
		Args: cobra.ExactArgs(1),
		RunE: imageVerb(cl, func(ctx context.Context, cmd *cobra.Command, node *containerd.Importer, args []string) error {
			if output != "json" && output != "yaml" {
				return oneOf(output, "json", "yaml")
			}
			img, err := node.Image(ctx, args[0])
			if err != nil {
				return err
			}
			return printData(cmd.OutOrStdout(), output, img)
		}),
		ValidArgsFunction: completeImages(cl),
	}
	cmd.Flags().StringVarP(&output, "output", "o", output, "Output format: json or yaml")
	return cmd
}

// completeImages names the node's images to the shell.
func completeImages(cl *cluster) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, toComplete string) (names []string, _ cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		c, err := cl.context()
		if err != nil || c.Containerd.Address == "" {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		node, err := containerd.Dial(c.Containerd.Address, c.Containerd.Instance)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer node.Close()
		list, err := node.Images(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, img := range list {
			if strings.HasPrefix(img.Name, toComplete) {
				names = append(names, img.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
