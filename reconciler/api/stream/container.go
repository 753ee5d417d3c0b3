package stream

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// chooseContainer is the container that is meant: the one named, or the only
// one. The annotation kubectl.kubernetes.io/default-container is the client's
// matter.
func chooseContainer(p *corev1.Pod, name string) (string, error) {
	if name != "" {
		if !hasContainer(p, name) {
			return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, p.Name))
		}
		return name, nil
	}
	if len(p.Spec.Containers) == 1 {
		return p.Spec.Containers[0].Name, nil
	}
	text := "a container name must be specified for pod " + p.Name
	if len(p.Spec.Containers) > 0 {
		text += ", choose one of: [" + containerNames(p.Spec.Containers) + "]"
	}
	if len(p.Spec.InitContainers) > 0 {
		text += " or one of the init containers: [" + containerNames(p.Spec.InitContainers) + "]"
	}
	return "", apierrors.NewBadRequest(text)
}

func containerNames(containers []corev1.Container) string {
	names := make([]string, len(containers))
	for i, c := range containers {
		names[i] = c.Name
	}
	return strings.Join(names, " ")
}

func hasContainer(p *corev1.Pod, name string) bool {
	for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for _, c := range list {
			if c.Name == name {
				return true
			}
		}
	}
	return false
}
