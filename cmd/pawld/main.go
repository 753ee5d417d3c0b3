// Command pawld is the daemon: it turns flags into a configuration, calls one
// Run and exits. It refuses to hold any logic of its own.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/schema/manifest"
)

// version is stamped by the build (-ldflags -X main.version=…).
var version = "dev"

func main() {
	manifest.ChildMain()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newRoot().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pawld: "+err.Error())
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "pawld",
		Short: "Run Kubernetes manifests from a Git repository, without Kubernetes",
		Long: `pawld runs Kubernetes manifests without Kubernetes. Push manifests to its Git
repository and the containers run; what leaves the repository stops.

Every flag is also an environment variable (--nats-listen is PAWL_NATS_LISTEN)
and may stand in the file named by --config as "nats-listen: value".
A flag wins over the environment, the environment over the file.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newUp(), newDown(), newToken(), newKubeconfig(), newVersion())
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "pawld "+version) },
	}
}
