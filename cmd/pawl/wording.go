package main

import (
	"regexp"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// kubectlName finds the program's name in a text, and what looks like it: pages
// of kubernetes.io and annotations, which are called that whoever asks.
var kubectlName = regexp.MustCompile(`\S*kubernetes\.io\S*|kubectl`)

// renamed is a text of kubectl's in which the program is called pawl.
func renamed(text string) string {
	return kubectlName.ReplaceAllStringFunc(text, func(found string) string {
		if found == "kubectl" {
			return "pawl"
		}
		return found
	})
}

// rename makes a command and those below it speak of pawl.
func rename(cmd *cobra.Command) {
	for _, text := range []*string{&cmd.Use, &cmd.Short, &cmd.Long, &cmd.Example, &cmd.Deprecated} {
		*text = renamed(*text)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = renamed(f.Usage) })
	cmd.PersistentFlags().VisitAll(func(f *pflag.Flag) { f.Usage = renamed(f.Usage) })
	for _, sub := range cmd.Commands() {
		rename(sub)
	}
}
