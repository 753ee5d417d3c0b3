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

// insteadOf says what to do instead of one of gitVerbs; nil for another command line.
func (c *cluster) insteadOf(args []string) error {
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
