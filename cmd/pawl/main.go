// Command pawl is the client: kubectl's own commands over Pawl's API, and verbs
// of its own that check manifests before they are pushed and say what became of
// them. It refuses to read a kubeconfig, and to change desired state by any way
// but Git.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	_ "github.com/pawl-project/pawl/cmd/pawl/quickstart"
	"github.com/pawl-project/pawl/schema/manifest"
)

// version is stamped by the build (-ldflags -X main.version=…).
var version = "dev"

// errSilent ends a command with exit code 1 after it has said why itself.
var errSilent = errors.New("already told")

func main() {
	manifest.ChildMain()
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	os.Exit(run(os.Args[1:], streams, os.Getenv))
}

// A fatal is how kubectl's commands end when they fail: thrown by what they
// call instead of os.Exit, so that deferred functions run, and caught by run.
type fatal struct {
	message string
	code    int
}

// run executes one command line and returns the exit code.
func run(args []string, s genericiooptions.IOStreams, env func(string) string) (code int) {
	c := newCluster(env)
	cmdutil.BehaviorOnFatal(func(message string, code int) { panic(fatal{message, code}) })
	defer func() {
		switch f := recover().(type) {
		case nil:
		case fatal:
			c.tell(s.ErrOut, f.message)
			code = f.code
		default:
			panic(f)
		}
	}()
	root := newRoot(c, s)
	root.SetArgs(args)
	err := c.insteadOf(args)
	if err == nil {
		err = root.Execute()
	}
	if err == nil {
		return 0
	}
	if !errors.Is(err, errSilent) {
		c.tell(s.ErrOut, message(err))
	}
	return 1
}

// interruptible lets a verb of Pawl's own clear away behind itself when it is
// interrupted. A second interrupt ends it as it is. kubectl's commands see to
// themselves, or simply end.
func interruptible(run func(context.Context, *cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		defer context.AfterFunc(ctx, stop)()
		return run(ctx, cmd, args)
	}
}

func newRoot(c *cluster, s genericiooptions.IOStreams) *cobra.Command {
	root := &cobra.Command{
		Use:   "pawl",
		Short: "Look into a Pawl cluster, and check manifests before they are pushed",
		Long: `pawl looks into a Pawl cluster, and checks manifests before they are pushed.
Desired state is changed in one way only: git push.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Run:           func(cmd *cobra.Command, _ []string) { _ = cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return c.prepare(s)
		},
	}
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.ErrOut)
	c.addFlags(root.PersistentFlags())
	addCommands(root, c, s)
	return root
}
