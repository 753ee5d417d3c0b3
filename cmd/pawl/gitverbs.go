package main

import (
	"fmt"
	"slices"
	"strings"
)

// gitVerbs are kubectl's commands that change desired state, and people's
// fingers know. Here a commit does it.
var gitVerbs = []string{
	"annotate", "apply", "autoscale", "create", "edit", "expose", "label", "patch", "replace", "run", "scale", "set",
	"rollout pause", "rollout restart", "rollout resume", "rollout undo",
}

// otherVerbs are kubectl's commands that Pawl answers in another way, or not at
// all, and how.
var otherVerbs = map[string]string{
	"config":       "clusters are told apart by contexts; see: pawl context --help",
	"cluster-info": "see: pawl context, pawl get nodes",
	"debug":        "see: pawl exec, pawl logs, pawl why",
	"proxy":        "curl reaches the server itself, with the token of the context; see: pawl context",
	"cordon":       "nodes cannot be taken out of service by hand yet",
	"uncordon":     "nodes cannot be taken out of service by hand yet",
	"drain":        "nodes cannot be taken out of service by hand yet",
	"taint":        "nodes cannot be tainted by hand yet",
}

// insteadOf says what to do instead of one of gitVerbs or otherVerbs; nil for
// another command line.
func (c *cluster) insteadOf(args []string) error {
	if len(args) > 0 && otherVerbs[args[0]] != "" {
		return plain{fmt.Sprintf("pawl has no %s: %s", args[0], otherVerbs[args[0]]), nil}
	}
	i := slices.IndexFunc(gitVerbs, func(verb string) bool {
		words := strings.Fields(verb)
		return len(args) >= len(words) && slices.Equal(args[:len(words)], words)
	})
	if i < 0 {
		return nil
	}
	text := fmt.Sprintf("pawl has no %s: desired state is changed by git push alone", gitVerbs[i])
	// Without a context there is no repository to name, and it is the same answer.
	if x, err := c.context(); err == nil && x.Repository != "" {
		text += "; the repository is " + x.Repository
		if x.Branch != "" {
			text += ", branch " + x.Branch
		}
	}
	return plain{text, nil}
}
