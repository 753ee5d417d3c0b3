package containerd

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// A Publisher is a Network that can have ports of the node lead to pods.
type Publisher interface {
	// Publish has the node's ports among these lead to an attached pod, in place
	// of those before. Detach ends it.
	Publish(ctx context.Context, uid types.UID, ports []corev1.ContainerPort) error
}

// publish has the ports of the node that the pod's containers ask for lead to it.
func (r *Runtime) publish(ctx context.Context, p *corev1.Pod) error {
	ports := hostPorts(p)
	if len(ports) == 0 {
		return nil
	}
	if err := checkFree(ports); err != nil {
		return err
	}
	n, can := r.opts.Network.(Publisher)
	if !can {
		return fmt.Errorf("hostPort %d: this node's network has no ports for pods: %w", ports[0].HostPort, schema.ErrRefused)
	}
	return n.Publish(ctx, p.UID, ports)
}

// hostPorts are those of the containers that run side by side: sidecars are
// among them, other init containers are not.
func hostPorts(p *corev1.Pod) (ports []corev1.ContainerPort) {
	collect := func(c *corev1.Container) {
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				ports = append(ports, port)
			}
		}
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			collect(c)
		}
	}
	for i := range p.Spec.Containers {
		collect(&p.Spec.Containers[i])
	}
	return ports
}
