package placement

import (
	corev1 "k8s.io/api/core/v1"
)

// company is what a pod and those on the nodes say of each other: affinity and
// anti-affinity, worked out for one pod and the cluster as it is.
type company struct {
	wants   []*term // required affinity
	beside  map[pair]int
	alone   bool    // nobody is there to be with, and the pod would do for itself
	avoids  []*term // required anti-affinity
	apart   map[pair]bool
	refused map[pair]bool // by the anti-affinity of pods that are there
	liked   map[pair]int64
}

// companyOf is nil when nobody says anything.
func (c *Cluster) companyOf(p *corev1.Pod) *company {
	a := p.Spec.Affinity
	concerned := a != nil && (a.PodAffinity != nil || a.PodAntiAffinity != nil)
	if !concerned && len(c.terms) == 0 {
		return nil
	}
	m := &company{}
	m.heed(c, p)
	if concerned {
		m.want(c, p, a.PodAffinity)
		m.avoid(c, p, a.PodAntiAffinity)
	}
	if len(m.wants)+len(m.avoids)+len(m.refused)+len(m.liked) == 0 {
		return nil
	}
	return m
}

// heed hears what pods that are there say of the pod.
func (m *company) heed(c *Cluster, p *corev1.Pod) {
	for _, t := range c.terms {
		if !t.matches(c, p.Namespace, p.Labels) {
			continue
		}
		for n, count := range t.on {
			at, ok := n.topology(t.topologyKey)
			switch {
			case !ok:
			case t.forbids:
				m.refuse(at)
			default:
				m.like(at, t.weight*int64(count))
			}
		}
	}
}

func (m *company) refuse(at pair) {
	if m.refused == nil {
		m.refused = map[pair]bool{}
	}
	m.refused[at] = true
}

func (m *company) like(at pair, weight int64) {
	if m.liked == nil {
		m.liked = map[pair]int64{}
	}
	m.liked[at] += weight
}

func (m *company) want(c *Cluster, p *corev1.Pod, a *corev1.PodAffinity) {
	if a == nil {
		return
	}
	for i := range a.RequiredDuringSchedulingIgnoredDuringExecution {
		m.wants = append(m.wants, termOf(p, &a.RequiredDuringSchedulingIgnoredDuringExecution[i]))
	}
	m.countBeside(c)
	if len(m.wants) > 0 && len(m.beside) == 0 {
		m.alone = meetsAll(c, m.wants, p.Namespace, p.Labels)
	}
	for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
		t := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
		m.prefer(c, termOf(p, &t.PodAffinityTerm), int64(t.Weight))
	}
}

// countBeside counts, for each domain, the pods that meet all required terms.
func (m *company) countBeside(c *Cluster) {
	if len(m.wants) == 0 {
		return
	}
	m.beside = map[pair]int{}
	m.wants[0].each(c, func(ns string, k *class) {
		if !meetsAll(c, m.wants[1:], ns, k.labels) {
			return
		}
		for n, t := range k.on {
			for _, w := range m.wants {
				if at, ok := n.topology(w.topologyKey); ok {
					m.beside[at] += t.all
				}
			}
		}
	})
}

func meetsAll(c *Cluster, terms []*term, namespace string, labels map[string]string) bool {
	for _, t := range terms {
		if !t.matches(c, namespace, labels) {
			return false
		}
	}
	return true
}

func (m *company) avoid(c *Cluster, p *corev1.Pod, a *corev1.PodAntiAffinity) {
	if a == nil {
		return
	}
	for i := range a.RequiredDuringSchedulingIgnoredDuringExecution {
		t := termOf(p, &a.RequiredDuringSchedulingIgnoredDuringExecution[i])
		m.avoids = append(m.avoids, t)
		if m.apart == nil {
			m.apart = map[pair]bool{}
		}
		t.each(c, func(_ string, k *class) {
			for n := range k.on {
				if at, ok := n.topology(t.topologyKey); ok {
					m.apart[at] = true
				}
			}
		})
	}
	for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
		t := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
		m.prefer(c, termOf(p, &t.PodAffinityTerm), -int64(t.Weight))
	}
}

func (m *company) prefer(c *Cluster, t *term, weight int64) {
	t.each(c, func(_ string, k *class) {
		for n, count := range k.on {
			if at, ok := n.topology(t.topologyKey); ok {
				m.like(at, weight*int64(count.all))
			}
		}
	})
}

// refuses says why the company keeps the pod off a node, "" when it does not,
// and whether the going of pods of that node could help.
func (m *company) refuses(n *node) (why string, helpless bool) {
	if m == nil {
		return "", false
	}
	if !m.welcome(n) {
		return whyAffinity, true
	}
	for _, t := range m.avoids {
		if at, ok := n.topology(t.topologyKey); ok && m.apart[at] {
			return whyAntiAffinity, false
		}
	}
	if len(m.refused) > 0 {
		for k, v := range n.labels {
			if m.refused[pair{k, v}] {
				return whyRefused, false
			}
		}
	}
	return "", false
}

// welcome: every term of the required affinity is met in the node's domain; the
// first of a group of pods that want each other may go anywhere they could.
func (m *company) welcome(n *node) bool {
	for _, t := range m.wants {
		at, ok := n.topology(t.topologyKey)
		if !ok || !m.alone && m.beside[at] == 0 {
			return false
		}
	}
	return true
}

// likes sums up what is preferred in the node's domains.
func (m *company) likes(n *node) int64 {
	if m == nil || len(m.liked) == 0 {
		return 0
	}
	var sum int64
	for k, v := range n.labels {
		sum += m.liked[pair{k, v}]
	}
	return sum
}
