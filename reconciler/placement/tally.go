package placement

// A tally counts pods by the domain they are in.
type tally struct {
	*topology
	counts  []int
	total   int
	version int // how often it changed

	// Which pods it counts, unless they are those that have a heldTerm:
	terms  []*term // those that all of these mean
	among  []bool  // on these nodes; nil: on all
	living bool    // and not those that end
}

func (l *layout) tally(key string) *tally {
	t := &tally{topology: l.topology(key)}
	t.counts = make([]int, t.domains)
	l.cells += t.domains + fewCells
	return t
}

// add counts pods of a node.
func (t *tally) add(n *node, count int) {
	if n.index == nowhere || t.among != nil && !t.among[n.index] {
		return
	}
	if domain := t.of[n.index]; domain != nowhere {
		t.counts[domain] += count
		t.total += count
		t.version++
	}
}

// at is the count of a node's domain; it is not ok when the node is in none.
func (t *tally) at(n *node) (count int, ok bool) {
	domain := t.of[n.index]
	if domain == nowhere {
		return 0, false
	}
	return t.counts[domain], true
}

// takeStock counts the pods that are there, and follows them from then on.
func (t *tally) takeStock(c *Cluster) {
	c.eachClass(t.terms[0], func(k *class) {
		if !meetsAll(c, t.terms[1:], k.namespace, k.labels) {
			return
		}
		for n, count := range k.on {
			t.add(n, count.of(t.living))
		}
	})
	c.layout().tallies.add(t.terms[0].selector, t)
}

func meetsAll(c *Cluster, terms []*term, namespace string, labels map[string]string) bool {
	for _, t := range terms {
		if !t.matches(c, namespace, labels) {
			return false
		}
	}
	return true
}
