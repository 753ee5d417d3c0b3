package volume

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pawl-project/pawl/schema"
)

// downward adds files with fields of the pod itself.
func (f filer) downward(all files, items []corev1.DownwardAPIVolumeFile, mode int32) error {
	for i := range items {
		item := &items[i]
		at, err := cleanPath(item.Path)
		if err != nil {
			return fmt.Errorf("downwardAPI: path: %w", err)
		}
		var text string
		switch {
		case item.FieldRef != nil:
			text, err = f.field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			text, err = f.resource(item.ResourceFieldRef)
		default:
			err = fmt.Errorf("neither fieldRef nor resourceFieldRef is given: %w", schema.ErrRefused)
		}
		if err != nil {
			return fmt.Errorf("downwardAPI: %s: %w", at, err)
		}
		all[at] = file{data: []byte(text), mode: modeOr(item.Mode, mode)}
	}
	return nil
}

func (f filer) field(fieldPath string) (string, error) {
	switch fieldPath {
	case "metadata.name":
		return f.pod.Name, nil
	case "metadata.namespace":
		return f.pod.Namespace, nil
	case "metadata.uid":
		return string(f.pod.UID), nil
	case "metadata.labels":
		return lines(f.pod.Labels), nil
	case "metadata.annotations":
		return lines(f.pod.Annotations), nil
	}
	if key, ok := subscript(fieldPath, "metadata.labels"); ok {
		return f.pod.Labels[key], nil
	}
	if key, ok := subscript(fieldPath, "metadata.annotations"); ok {
		return f.pod.Annotations[key], nil
	}
	return "", fmt.Errorf("field %q is not supported; there are metadata.name, namespace, uid, labels, annotations, labels['KEY'] and annotations['KEY']: %w", fieldPath, schema.ErrRefused)
}

// subscript returns KEY of field['KEY'].
func subscript(fieldPath, field string) (string, bool) {
	rest, ok := strings.CutPrefix(fieldPath, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// lines is a map as Kubernetes writes it to a file: key="value", sorted.
func lines(m map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(all, "\n")
}

// resource is a request or limit of a container in units of the divisor, rounded
// up; a limit that is not set is the node's.
func (f filer) resource(r *corev1.ResourceFieldSelector) (string, error) {
	c := f.container(r.ContainerName)
	if c == nil {
		return "", fmt.Errorf("there is no container %q: %w", r.ContainerName, schema.ErrRefused)
	}
	which, name, _ := strings.Cut(r.Resource, ".")
	resourceName := corev1.ResourceName(name)
	limit, limited := c.Resources.Limits[resourceName]
	var q resource.Quantity
	switch which {
	case "limits":
		if q = limit; !limited {
			q = f.capacity()[resourceName]
		}
	case "requests":
		q = limit
		if request, ok := c.Resources.Requests[resourceName]; ok {
			q = request
		}
	default:
		return "", fmt.Errorf("resource %q is not supported: %w", r.Resource, schema.ErrRefused)
	}
	return inUnits(q, r.Divisor, resourceName), nil
}

func (f filer) container(name string) *corev1.Container {
	for _, list := range [][]corev1.Container{f.pod.Spec.Containers, f.pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// inUnits counts cpu in thousandths, so that a divisor of 1m works.
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
