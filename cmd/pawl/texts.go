package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// texts say of kubectl's commands what is true here and not there. An empty
// one leaves kubectl's own.
var texts = map[string]struct{ short, long, example string }{
	"pawl delete": {
		short: "Restart pods",
		long: `Restart pods, by name, label or file.

Another pod takes the place of one that belongs to a Deployment. A pod that
stands in Git itself comes back under its name for as long as it stands there.
Everything else is removed by git push alone: the server refuses, and says which
file of which repository to change.`,
		example: `  # Restart one pod; --now gives it one second to end
  pawl delete pod web-6d4cf56db6-x7x2z
  pawl delete pod web-6d4cf56db6-x7x2z --now

  # Restart all pods with a label
  pawl delete pods -l app=web`,
	},
	"pawl rollout": {
		short: "Follow the rollout of a change, and see earlier ones",
		long: `Follow the rollout of a change, and see earlier ones. To start one, stop one or
go back, push a commit (git revert takes one back).`,
		example: `  # Wait until the newest form of a deployment runs
  pawl rollout status deployment/web

  # See its earlier forms, and one of them in full
  pawl rollout history deployment/web
  pawl rollout history deployment/web --revision=3`,
	},
	"pawl rollout history": {example: `  # See the earlier forms of a deployment, and one of them in full
  pawl rollout history deployment/web
  pawl rollout history deployment/web --revision=3`},
	"pawl auth": {short: "Ask who you are and what you may do"},
	"pawl auth whoami": {
		short: "Say who the server takes you for",
		long:  "Say who the server takes you for: the name and the groups that your token or certificate stands for.",
	},
	"pawl auth can-i": {
		long: `Ask whether you may do something. VERB is one of the API's, such as get, list,
watch or delete; TYPE is a type as in get; NONRESOURCEURL begins with a slash.
The exit code is 0 for yes and 1 for no.`,
		example: `  # May I restart pods here, and in all namespaces?
  pawl auth can-i delete pods
  pawl auth can-i delete pods --all-namespaces

  # May I read logs, and run commands in pods?
  pawl auth can-i get pods --subresource=log
  pawl auth can-i create pods --subresource=exec

  # What may I do in the namespace shop?
  pawl auth can-i --list -n shop`,
	},
	"pawl completion": {
		short: "Print what makes a shell complete pawl's commands and the names in the cluster",
		long: `Print what makes a shell (bash, zsh, fish or powershell) complete pawl's commands,
their flags, and the types and names that are in the cluster.`,
		example: `  # bash, with the package bash-completion: now, and in every shell from now on
  source <(pawl completion bash)
  pawl completion bash > /etc/bash_completion.d/pawl

  # zsh
  source <(pawl completion zsh)
  pawl completion zsh > "${fpath[1]}/_pawl"

  # fish
  pawl completion fish > ~/.config/fish/completions/pawl.fish

  # powershell
  pawl completion powershell | Out-String | Invoke-Expression`,
	},
}

// pointless are flags of kubectl's commands that nothing here honours: there is
// no kubelet with a certificate, kustomizations are built from Git, dependents
// go with what Git has, and types are described in one format.
var pointless = map[string][]string{
	"pawl logs":    {"insecure-skip-tls-verify-backend"},
	"pawl delete":  {"cascade", "raw"},
	"pawl explain": {"output"},
	"":             {"kustomize"},
}

// pointlessExamples are marks of examples that would not work here.
var pointlessExamples = []string{" -k ", "--insecure-skip-tls-verify-backend", "create secret", "plaintext-openapiv2", "replicationcontroller web"}

// pointlessUsage is how usage lines offer pointless flags.
var pointlessUsage = regexp.MustCompile(` ?\| ?\[?-k DIRECTORY\]?| \[-o\|--output=plaintext\|plaintext-openapiv2\]`)

// fit makes cmd and the commands below it say what is so here, under the name
// pawl, and takes away the flags that nothing honours.
func fit(cmd *cobra.Command) {
	path := cmd.CommandPath()
	own := texts[path]
	cmd.Example = withoutExamples(cmd.Example)
	for _, x := range []struct {
		text *string
		own  string
	}{{&cmd.Use, ""}, {&cmd.Short, own.short}, {&cmd.Long, own.long}, {&cmd.Example, own.example}, {&cmd.Deprecated, ""}} {
		*x.text = renamed(*x.text)
		if x.own != "" {
			*x.text = x.own
		}
	}
	cmd.Use = pointlessUsage.ReplaceAllString(cmd.Use, "")
	withoutFlags(cmd, slices.Concat(pointless[path], pointless[""]))
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = renamed(f.Usage) })
	for _, sub := range cmd.Commands() {
		fit(sub)
	}
}

// withoutExamples leaves out the paragraphs that a mark stands in.
func withoutExamples(text string) string {
	paragraphs := strings.Split(text, "\n  \n")
	return strings.Join(slices.DeleteFunc(paragraphs, func(p string) bool {
		return slices.ContainsFunc(pointlessExamples, func(mark string) bool { return strings.Contains(p, mark) })
	}), "\n  \n")
}

// withoutFlags takes flags away from cmd itself.
func withoutFlags(cmd *cobra.Command, names []string) {
	if !slices.ContainsFunc(names, func(name string) bool { return cmd.Flags().Lookup(name) != nil }) {
		return
	}
	all := cmd.Flags()
	cmd.ResetFlags()
	all.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(names, f.Name) {
			cmd.Flags().AddFlag(f)
		}
	})
}

// replacements is what kubectl's texts say and what is said here, in this order.
var replacements = strings.NewReplacer(
	"  Uses the transport specified by the kubeconfig file.", "",
)

// renamed is a text of kubectl's in which the program is called pawl. Pages of
// kubernetes.io and annotations keep their names, whoever asks.
func renamed(text string) string {
	const old = "kubectl"
	if !strings.Contains(text, old) && !strings.Contains(text, "kubeconfig") {
		return text // as nearly all are; this is done at each start
	}
	text = replacements.Replace(text)
	var b strings.Builder
	for {
		i := strings.Index(text, old)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		from := strings.LastIndexAny(text[:i], " \n\t") + 1
		to := strings.IndexAny(text[i:], " \n\t")
		if to < 0 {
			to = len(text) - i
		}
		if strings.Contains(text[from:i+to], "kubernetes.io") {
			b.WriteString(text[:i+to])
			text = text[i+to:]
			continue
		}
		b.WriteString(text[:i] + "pawl")
		text = text[i+len(old):]
	}
}

// oneOf says that an output format is none of those that a verb has.
func oneOf(choice string, choices ...string) error {
	return fmt.Errorf("unknown output format %q; must be one of %s", choice, strings.Join(choices, ", "))
}
