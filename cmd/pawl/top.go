package main

import (
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/top"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// newTop is kubectl's top: what nodes and pods take, as the nodes told last.
func newTop(f cmdutil.Factory, s genericiooptions.IOStreams) *cobra.Command {
	return top.NewCmdTop(f, s)
}
