package main

import (
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/apiresources"
	"k8s.io/kubectl/pkg/cmd/auth"
	"k8s.io/kubectl/pkg/cmd/completion"
	"k8s.io/kubectl/pkg/cmd/delete"
	"k8s.io/kubectl/pkg/cmd/describe"
	"k8s.io/kubectl/pkg/cmd/events"
	"k8s.io/kubectl/pkg/cmd/exec"
	"k8s.io/kubectl/pkg/cmd/explain"
	"k8s.io/kubectl/pkg/cmd/get"
	"k8s.io/kubectl/pkg/cmd/logs"
	"k8s.io/kubectl/pkg/cmd/options"
	"k8s.io/kubectl/pkg/cmd/rollout"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/cmd/wait"
	utilcomp "k8s.io/kubectl/pkg/util/completion"
	"k8s.io/kubectl/pkg/util/templates"
)

// addCommands hangs kubectl's commands and Pawl's own below root, in the groups
// that `pawl --help` shows.
func addCommands(root *cobra.Command, c *cluster, s genericiooptions.IOStreams) {
	f := cmdutil.NewFactory(c)
	utilcomp.SetFactoryForCompletion(f)

	getCmd := get.NewCmdGet("pawl", f, s)
	// Set here, as kubectl does, because get cannot import completion.
	getCmd.ValidArgsFunction = utilcomp.ResourceTypeAndNameCompletionFunc(f)
	hushed := s
	hushed.ErrOut = hush{&c.door, s.ErrOut}

	groups := templates.CommandGroups{
		{Message: "See what runs:", Commands: []*cobra.Command{
			getCmd,
			describe.NewCmdDescribe("pawl", f, s),
			newWhy(c, s),
			events.NewCmdEvents(f, s),
			only(rollout.NewCmdRollout("pawl", f, s), "status", "history"),
			wait.NewCmdWait(f, s),
			newTop(f, s),
		}},
		{Message: "Be in a pod:", Commands: []*cobra.Command{
			logs.NewCmdLogs(f, s),
			exec.NewCmdExec(f, s),
			newAttach(f, s),
			newPortForward(f, s),
			newCp(c, f, s),
			delete.NewCmdDelete(f, s),
		}},
		{Message: "Git, and what became of it:", Commands: []*cobra.Command{
			newValidate(),
			newHistory(c, s),
			newBlame(c, s),
		}},
		{Message: "The cluster:", Commands: []*cobra.Command{
			newContext(c, s),
			explain.NewCmdExplain("pawl", f, s),
			apiresources.NewCmdAPIResources(f, s),
			apiresources.NewCmdAPIVersions(f, s),
			only(auth.NewCmdAuth(f, hushed), "can-i", "whoami"),
			newImage(c),
		}},
	}
	groups.Add(root)
	root.AddCommand(completion.NewCmdCompletion(s.Out, "\n"), newVersion(c, s), options.NewCmdOptions(s.Out))
	for flag, complete := range map[string]cobra.CompletionFunc{
		"namespace": func(_ *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			return utilcomp.CompGetResource(f, "namespace", toComplete), cobra.ShellCompDirectiveNoFileComp
		},
		"context": func(_ *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			return c.completeContext(nil, nil, toComplete)
		},
	} {
		cmdutil.CheckErr(root.RegisterFlagCompletionFunc(flag, complete))
	}
	templates.ActsAsRootCommand(root, []string{"options"}, groups...)
	fit(root)
}

// only keeps the named subcommands of cmd.
func only(cmd *cobra.Command, names ...string) *cobra.Command {
	for _, sub := range cmd.Commands() {
		if !slices.Contains(names, sub.Name()) {
			cmd.RemoveCommand(sub)
		}
	}
	return cmd
}
