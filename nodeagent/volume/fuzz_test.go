package volume

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// FuzzMountPoints: whatever the table says, what is named lies below.
func FuzzMountPoints(f *testing.F) {
	f.Add("36 35 98:0 / /a/b rw - tmpfs none rw\n37 36 0:1 / /a/b/c\\040d rw shared:1 - tmpfs none rw", "/a")
	f.Fuzz(func(t *testing.T, table, dir string) {
		for _, at := range mountPoints([]byte(table), dir) {
			if !strings.HasPrefix(at, dir+"/") {
				t.Errorf("%q is not below %q", at, dir)
			}
		}
	})
}

// TestMemorySize: the least of the node's memory, the pod's limit and the volume's.
func TestMemorySize(t *testing.T) {
	v := New(Options{Capacity: func() corev1.ResourceList { return corev1.ResourceList{"memory": resource.MustParse("1000")} }})
	limited := func(n string) corev1.Container {
		c := corev1.Container{}
		if n != "" {
			c.Resources.Limits = corev1.ResourceList{"memory": resource.MustParse(n)}
		}
		return c
	}
	sidecar := limited("50")
	sidecar.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	for name, c := range map[string]struct {
		init, app []corev1.Container
		own       string
		want      int64
	}{
		"nothing said":       {nil, []corev1.Container{limited("")}, "", 1000},
		"the volume's":       {nil, []corev1.Container{limited("")}, "300", 300},
		"more than the node": {nil, []corev1.Container{limited("5000")}, "3000", 1000},
		"the pod's":          {nil, []corev1.Container{limited("100"), limited("150")}, "300", 250},
		"one has no limit":   {nil, []corev1.Container{limited("100"), limited("")}, "", 1000},
		"with a sidecar":     {[]corev1.Container{sidecar}, []corev1.Container{limited("100")}, "", 150},
		"an init takes most": {[]corev1.Container{sidecar, limited("700")}, []corev1.Container{limited("100")}, "", 750},
		"zero is none":       {nil, []corev1.Container{limited("100")}, "0", 100},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: c.init, Containers: c.app}}
		var own *resource.Quantity
		if c.own != "" {
			own = ptr.To(resource.MustParse(c.own))
		}
		if got := v.memorySize(p, own); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
