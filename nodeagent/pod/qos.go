package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QOS is the pod's quality of service class: Guaranteed when every container
// has limits for cpu and memory and requests equal to them, BestEffort when none
// asks for or limits either, Burstable otherwise.
func QOS(p *corev1.Pod) corev1.PodQOSClass {
	guaranteed, asked := true, false
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				request, limit := positive(c.Resources.Requests, name), positive(c.Resources.Limits, name)
				if request != nil || limit != nil {
					asked = true
				}
				_, zero := c.Resources.Requests[name] // asked for, but for nothing
				if limit == nil || request != nil && request.Cmp(*limit) != 0 || request == nil && zero {
					guaranteed = false
				}
			}
		}
	}
	switch {
	case !asked:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	default:
		return corev1.PodQOSBurstable
	}
}

func positive(list corev1.ResourceList, name corev1.ResourceName) *resource.Quantity {
	if q, ok := list[name]; ok && q.Sign() > 0 {
		return &q
	}
	return nil
}
