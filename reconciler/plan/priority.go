package plan

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

// systemRanks are the classes that every cluster has.
var systemRanks = map[string]int32{"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}

func (p *Planner) setPriorityClass(name string, o schema.Object) {
	p.moved = true
	if c, ok := o.(*schedulingv1.PriorityClass); ok {
		p.ranks[name] = c
	} else {
		delete(p.ranks, name)
	}
}

func (p *Planner) setNamespace(name string, o schema.Object) {
	p.moved = true
	if n, ok := o.(*corev1.Namespace); ok && n.Labels != nil {
		p.room.DescribeNamespace(name, n.Labels)
	} else {
		p.room.DescribeNamespace(name, nil)
	}
}

// prioritize gives a new pod the priority of its class, as it is now; a pod
// that has one keeps it. The error is why there is none.
func (p *Planner) prioritize(s *corev1.PodSpec) error {
	if s.Priority != nil {
		return nil
	}
	c := p.standard()
	if s.PriorityClassName != "" {
		if value, ok := systemRanks[s.PriorityClassName]; ok {
			s.Priority = &value
			return nil
		}
		if c = p.ranks[s.PriorityClassName]; c == nil {
			return fmt.Errorf("no PriorityClass with name %s was found", s.PriorityClassName)
		}
	}
	if c == nil {
		return nil
	}
	s.PriorityClassName, s.Priority = c.Name, ptr.To(c.Value)
	if s.PreemptionPolicy == nil {
		s.PreemptionPolicy = c.PreemptionPolicy
	}
	return nil
}

// standard is the class of pods that name none; of several the lowest.
func (p *Planner) standard() *schedulingv1.PriorityClass {
	var best *schedulingv1.PriorityClass
	for _, c := range p.ranks {
		if c.GlobalDefault && (best == nil || c.Value < best.Value || c.Value == best.Value && c.Name < best.Name) {
			best = c
		}
	}
	return best
}

// withoutPriority takes from a spec what prioritize gave to a pod of the manifest.
func withoutPriority(s, manifest *corev1.PodSpec) {
	if manifest.Priority == nil {
		s.Priority = nil
	}
	if manifest.PriorityClassName == "" {
		s.PriorityClassName = ""
	}
	if manifest.PreemptionPolicy == nil {
		s.PreemptionPolicy = nil
	}
}
