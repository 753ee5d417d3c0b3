package placement

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// A class is the pods of one namespace with the same labels. Their number is
// small where the number of pods is not.
type class struct {
	namespace string
	labels    map[string]string
	words     string // its namespace and labels
	members   int
	on        map[*node]headcount
}

// A headcount is of the pods of a class on a node.
type headcount struct{ all, living int }

func (h headcount) of(living bool) int {
	if living {
		return h.living
	}
	return h.all
}

func (k *class) count(n *node, more headcount) {
	h := k.on[n]
	h.all += more.all
	h.living += more.living
	if h == (headcount{}) {
		delete(k.on, n)
		return
	}
	k.on[n] = h
}

// classes are those of all pods on nodes.
type classes struct {
	all map[string]*class
	// of finds them by namespace and a label, the empty one: any.
	of map[string]map[pair]map[*class]bool
}

// join finds the class of a pod that is a member from now on.
func (s *classes) join(p *corev1.Pod) *class {
	words := classWords(p)
	k := s.all[words]
	if k == nil {
		k = &class{namespace: p.Namespace, labels: p.Labels, words: words, on: map[*node]headcount{}}
		s.all[words] = k
		if s.of[k.namespace] == nil {
			s.of[k.namespace] = map[pair]map[*class]bool{}
		}
		k.each(func(l pair) {
			if s.of[k.namespace][l] == nil {
				s.of[k.namespace][l] = map[*class]bool{}
			}
			s.of[k.namespace][l][k] = true
		})
	}
	k.members++
	return k
}

// leave forgets a class with its last member.
func (s *classes) leave(k *class) {
	if k.members--; k.members > 0 {
		return
	}
	delete(s.all, k.words)
	of := s.of[k.namespace]
	k.each(func(l pair) {
		if delete(of[l], k); len(of[l]) == 0 {
			delete(of, l)
		}
	})
	if len(of) == 0 {
		delete(s.of, k.namespace)
	}
}

// each calls f for the labels by which a class is found.
func (k *class) each(f func(pair)) {
	f(pair{})
	for key, value := range k.labels {
		f(pair{key, value})
	}
}

func classWords(p *corev1.Pod) string {
	keys := make([]string, 0, len(p.Labels))
	for k := range p.Labels {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b := append([]byte(p.Namespace), 0)
	for _, k := range keys {
		b = append(append(append(append(b, k...), 0), p.Labels[k]...), 0)
	}
	return string(b)
}

// theClasses are made when somebody first asks.
func (c *Cluster) theClasses() *classes {
	if c.classes != nil {
		return c.classes
	}
	c.classes = &classes{all: map[string]*class{}, of: map[string]map[pair]map[*class]bool{}}
	for _, n := range c.nodes {
		for _, h := range n.pods {
			h.class = c.classes.join(h.pod)
			count := headcount{all: h.count}
			if !h.ending {
				count.living = h.count
			}
			h.class.count(n, count)
		}
	}
	return c.classes
}

// eachClass calls f for every class that a term means, in whatever order.
func (c *Cluster) eachClass(t *term, f func(*class)) {
	s := c.theClasses()
	if t.selector == nil {
		return
	}
	if t.others == nil {
		for i, ns := range t.namespaces {
			if !slices.Contains(t.namespaces[:i], ns) {
				t.eachOf(s.of[ns], f)
			}
		}
		return
	}
	for ns, of := range s.of {
		if t.covers(c, ns) {
			t.eachOf(of, f)
		}
	}
}

// eachOf looks at those that have the rarest label that the term demands.
func (t *term) eachOf(of map[pair]map[*class]bool, f func(*class)) {
	few := of[pair{}]
	for _, l := range demands(t.selector) {
		if len(of[l]) < len(few) {
			few = of[l]
		}
	}
	for k := range few {
		if matches(t.selector, k.labels) {
			f(k)
		}
	}
}
