package main

import (
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/attach"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

func newAttach(f cmdutil.Factory, s genericiooptions.IOStreams) *cobra.Command {
	return attach.NewCmdAttach(f, s)
}
