package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// qosPod has one container that asks for, and is limited to, an amount of cpu
// and as much memory.
func qosPod(request, limit string) *corev1.Pod {
	p := simPod(corev1.RestartPolicyAlways, nil, []string{"web"})
	c := &p.Spec.Containers[0]
	set := func(text string) corev1.ResourceList {
		if text == "" {
			return nil
		}
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(text), corev1.ResourceMemory: resource.MustParse(text)}
	}
	c.Resources.Requests, c.Resources.Limits = set(request), set(limit)
	return p
}
