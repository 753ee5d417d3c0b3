package nodeagent

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pawl-project/pawl/schema"
)

// resource resolves a resourceFieldRef: a request or limit of a container in
// units of the divisor, rounded up. A limit that is not set is the node's.
func (e environment) resource(r *corev1.ResourceFieldSelector) (string, error) {
	c := e.container
	if r.ContainerName != "" && r.ContainerName != c.Name {
		if c = container(e.pod, r.ContainerName); c == nil {
			return "", fmt.Errorf("resourceFieldRef: no container %q: %w", r.ContainerName, schema.ErrRefused)
		}
	}
	which, name, ok := strings.Cut(r.Resource, ".")
	var q resource.Quantity
	switch {
	case ok && which == "limits":
		q = e.limit(c, corev1.ResourceName(name))
	case ok && which == "requests":
		if q, ok = c.Resources.Requests[corev1.ResourceName(name)]; !ok {
			q = c.Resources.Limits[corev1.ResourceName(name)]
		}
	default:
		return "", fmt.Errorf("resourceFieldRef: resource %q is not supported: %w", r.Resource, schema.ErrRefused)
	}
	return inUnits(q, r.Divisor, corev1.ResourceName(name)), nil
}

func (e environment) limit(c *corev1.Container, name corev1.ResourceName) resource.Quantity {
	if q, ok := c.Resources.Limits[name]; ok {
		return q
	}
	return e.node[name]
}

// inUnits is q divided by unit (1 when not set), rounded up. Cpu is counted in
// thousandths, so that a divisor of 1m works.
func inUnits(q, unit resource.Quantity, name corev1.ResourceName) string {
	value := (*resource.Quantity).Value
	if name == corev1.ResourceCPU {
		value = (*resource.Quantity).MilliValue
	}
	if unit.IsZero() {
		unit = resource.MustParse("1")
	}
	n, d := value(&q), value(&unit)
	return strconv.FormatInt((n+d-1)/d, 10)
}

// effectiveUser is the uid the container is told to run as, nil when it is the
// image's, and whether it must not be root.
func effectiveUser(p *corev1.Pod, c *corev1.Container) (user *int64, nonRoot bool) {
	if s := p.Spec.SecurityContext; s != nil {
		user = s.RunAsUser
		nonRoot = s.RunAsNonRoot != nil && *s.RunAsNonRoot
	}
	if s := c.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			user = s.RunAsUser
		}
		if s.RunAsNonRoot != nil {
			nonRoot = *s.RunAsNonRoot
		}
	}
	return user, nonRoot
}

// rootUser says whether an image's USER is root; numericUser whether it can be told.
func rootUser(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	n, err := strconv.Atoi(name)
	return name == "" || name == "root" || err == nil && n == 0
}

func numericUser(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	_, err := strconv.ParseUint(name, 10, 32)
	return err == nil
}
