package main

import (
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/top"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// newTop is kubectl's top: what nodes and pods take, as the nodes told last.
func newTop(f cmdutil.Factory, s genericiooptions.IOStreams) *cobra.Command {
	cmd := top.NewCmdTop(f, s)
	cmd.Long = `Show what nodes and pods take of cpu and memory. Every node measures its
containers each 15 seconds and tells the store; memory is the working set. A pod
that has just started has no figures yet.`
	return cmd
}
