package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	k8sversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/pawl-project/pawl/schema"
)

// versions is what -o json and yaml print.
type versions struct {
	Client string           `json:"client"`
	Server *k8sversion.Info `json:"server,omitempty"`
}

func newVersion(c *cluster, s genericiooptions.IOStreams) *cobra.Command {
	var clientOnly bool
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of client and server",
		Example: `  pawl version
  pawl version --client -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: version}
			var failed error
			if !clientOnly {
				v.Server, failed = c.serverVersion(cmd)
			}
			if err := printVersions(s, v, output); err != nil {
				return err
			}
			return failed
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "Ask no server")
	cmd.Flags().StringVarP(&output, "output", "o", "", "Output format: json or yaml")
	return cmd
}

// serverVersion is nil when this machine knows no cluster that could be asked.
func (c *cluster) serverVersion(cmd *cobra.Command) (*k8sversion.Info, error) {
	client, err := c.restClient()
	if errors.Is(err, schema.ErrNotFound) && c.flags.context == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	body, err := fetch(cmd.Context(), client.Get().AbsPath("/version"))
	if err != nil {
		return nil, err
	}
	info := new(k8sversion.Info)
	if err := json.Unmarshal(body, info); err != nil {
		return nil, fmt.Errorf("/version: %w", err)
	}
	return info, nil
}

func printVersions(s genericiooptions.IOStreams, v versions, output string) error {
	switch output {
	case "json", "yaml":
		return printData(s.Out, output, v)
	case "":
	default:
		return oneOf(output, "json", "yaml")
	}
	fmt.Fprintln(s.Out, "Client Version: "+v.Client)
	if v.Server != nil {
		fmt.Fprintln(s.Out, "Server Version: "+v.Server.GitVersion)
	}
	return nil
}
