package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/term"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/containerd"
)

func newImagePull(cl *cluster) *cobra.Command {
	var mirrors []string
	var credentials string
	cmd := &cobra.Command{
		Use:   "pull IMAGE...",
		Short: "Pull images before pods need them",
		Long: `Pull images to the node on this machine, so that pods start at once. An image that
is there and has not changed is not fetched again. The mirrors that "pawld up" was
given are not known here; name them again.`,
		Example: `  pawl image pull nginx:1.27
  pawl image pull web:7 --registry-mirror docker.io=http://127.0.0.1:5000
  pawl image pull registry.example.org/team/app:3 --credentials ~/.docker/config.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: imageVerb(cl, func(ctx context.Context, cmd *cobra.Command, node *containerd.Importer, names []string) error {
			o := containerd.PullOptions{}
			var err error
			if o.Mirrors, err = containerd.ParseMirrors(mirrors); err != nil {
				return err
			}
			logins, err := readLogins(input{ctx, cmd.InOrStdin()}, credentials)
			if err != nil {
				return err
			}
			for _, name := range names {
				if logins != nil {
					o.Credentials = bytes.NewReader(logins)
				}
				if err := pullImage(ctx, cmd, node, name, o); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().StringArrayVar(&mirrors, "registry-mirror", nil, "Pull images of HOST from URL instead, as HOST=URL; repeatable")
	cmd.Flags().StringVar(&credentials, "credentials", "", "A Docker configuration file with logins (\"-\" reads standard input)")
	return cmd
}

// readLogins reads a file with logins, which may serve several pulls; nil for no
// file. What is too long is refused where it is understood.
func readLogins(in io.Reader, file string) ([]byte, error) {
	const most = 2 << 20
	switch file {
	case "":
		return nil, nil
	case "-":
		return io.ReadAll(io.LimitReader(in, most))
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

func pullImage(ctx context.Context, cmd *cobra.Command, node *containerd.Importer, name string, o containerd.PullOptions) error {
	line := progressLine{out: cmd.ErrOrStderr()}
	if (term.TTY{Out: line.out}).IsTerminalOut() {
		o.Progress = func(p nodeagent.PullProgress) { line.show(name + ": " + p.String()) }
	}
	img, err := node.PullImage(ctx, name, o)
	line.show("")
	if err != nil {
		return err
	}
	if !img.Pulled {
		fmt.Fprintf(cmd.OutOrStdout(), "%s is here already: %s\n", img.Ref, img.ID)
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "pulled %s: %s, %v in %v\n", img.Ref, img.ID, nodeagent.Bytes(img.Bytes), img.Took.Round(time.Millisecond))
	return nil
}

// A progressLine is a line of a terminal that is written over.
type progressLine struct {
	out  io.Writer
	last int // characters that stand there
}

func (l *progressLine) show(text string) {
	if text == "" && l.last == 0 {
		return
	}
	fmt.Fprint(l.out, "\r"+text+strings.Repeat(" ", max(0, l.last-len(text))))
	if l.last = len(text); text == "" {
		fmt.Fprint(l.out, "\r")
	}
}
