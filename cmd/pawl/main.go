// Command pawl is the client: it checks manifests before they are pushed and
// looks at what became of them. It refuses to change desired state by any way
// but Git.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/schema/manifest"
)

// version is stamped by the build (-ldflags -X main.version=…).
var version = "dev"

// errSilent ends a command with exit code 1 after it has said why itself.
var errSilent = errors.New("already told")

func main() {
	manifest.ChildMain()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newRoot().ExecuteContext(ctx)
	if err == nil {
		return
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
	}
	os.Exit(1)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "pawl",
		Short: "Look into a Pawl cluster, and check manifests before they are pushed",
		Long: `pawl looks into a Pawl cluster, and checks manifests before they are pushed.
Desired state is changed in one way only: git push.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().String("context", "", "context to use; default: the current one of the configuration file")
	root.AddCommand(newValidate(), newHistory(), newImage(), newVersion())
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the client's version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "pawl "+version) },
	}
}
