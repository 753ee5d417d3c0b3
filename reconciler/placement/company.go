package placement

// hear finds out what pods that are there say of the pod.
func (a *ask) hear(c *Cluster) {
	c.terms.index.each(a.pod.Labels, func(t *heldTerm) {
		switch {
		case !t.matches(c, a.pod.Namespace, a.pod.Labels):
		case t.forbids:
			a.refusedBy = append(a.refusedBy, c.heldTally(t))
		default:
			a.likedBy = append(a.likedBy, liking{c.heldTally(t), t.weight})
		}
	})
}

// unwelcome says why other pods keep the pod off a node, "" when they do not,
// and whether the going of pods of that node could help.
func (a *ask) unwelcome(n *node) (why string, helpless bool) {
	for _, t := range a.beside {
		if count, ok := t.at(n); !ok || count == 0 && !a.first() {
			return whyAffinity, true
		}
	}
	for _, t := range a.apart {
		if count, _ := t.at(n); count > 0 {
			return whyAntiAffinity, false
		}
	}
	for _, t := range a.refusedBy {
		if count, _ := t.at(n); count > 0 {
			return whyRefused, false
		}
	}
	return "", false
}

// first: nobody is there to be with, and the pod would do for itself. The first
// of a group of pods that want each other may go anywhere they could.
func (a *ask) first() bool {
	for _, t := range a.beside {
		if t.total > 0 {
			return false
		}
	}
	return a.itself
}

// favour sums up what is preferred in the node's domains.
func (a *ask) favour(n *node) int {
	sum := 0
	for _, l := range a.likes {
		count, _ := l.at(n)
		sum += l.weight * count
	}
	for _, l := range a.likedBy {
		count, _ := l.at(n)
		sum += l.weight * count
	}
	return sum
}
