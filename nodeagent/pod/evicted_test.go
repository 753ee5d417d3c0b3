package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestEviction: which limit a pod is evicted for, in Kubernetes' words.
func TestEviction(t *testing.T) {
	const mi = 1 << 20
	// storagePod has app containers web and log, an init container prep, a sidecar
	// side, and an emptyDir; a limit of "" is none.
	storagePod := func(web, log, prep, side, volume string) *corev1.Pod {
		p := simPod(corev1.RestartPolicyAlways, []string{"prep", "side"}, []string{"web", "log"})
		always := corev1.ContainerRestartPolicyAlways
		p.Spec.InitContainers[1].RestartPolicy = &always
		set := func(c *corev1.Container, limit string) {
			if limit != "" {
				c.Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(limit)}
			}
		}
		set(&p.Spec.Containers[0], web)
		set(&p.Spec.Containers[1], log)
		set(&p.Spec.InitContainers[0], prep)
		set(&p.Spec.InitContainers[1], side)
		dir := &corev1.EmptyDirVolumeSource{}
		if volume != "" {
			q := resource.MustParse(volume)
			dir.SizeLimit = &q
		}
		p.Spec.Volumes = []corev1.Volume{{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: dir}}}
		return p
	}
	use := func(web, log, cache uint64) StorageUse {
		return StorageUse{Containers: map[string]uint64{"web": web, "log": log}, Volumes: map[string]uint64{"cache": cache}}
	}
	critical := storagePod("1Mi", "", "", "", "")
	critical.Spec.PriorityClassName = "system-node-critical"
	for name, c := range map[string]struct {
		p    *corev1.Pod
		use  StorageUse
		want string
	}{
		"no limits":       {storagePod("", "", "", "", ""), use(1<<40, 1<<40, 1<<40), ""},
		"nothing used":    {storagePod("1Gi", "", "", "", "1Gi"), StorageUse{}, ""},
		"just within":     {storagePod("1Gi", "1Gi", "", "", ""), use(1<<30, 1<<30, 0), ""},
		"volume":          {storagePod("1Mi", "", "", "", "1Gi"), use(2*mi, 0, 1<<30+1), `Usage of EmptyDir volume "cache" exceeds the limit "1Gi".`},
		"volume within":   {storagePod("", "", "", "", "1Gi"), use(0, 0, 1<<30), ""},
		"a limit of none": {storagePod("", "", "", "", "0"), use(0, 0, 1<<30), ""},
		"container":       {storagePod("1Gi", "2Gi", "", "", ""), use(1<<30+1, 0, 0), `Container web exceeded its local ephemeral storage limit "1Gi".`},
		// The limits there are count together, though one container has none.
		"pod":                      {storagePod("1Gi", "", "", "", ""), use(1, 1<<30, 0), "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."},
		"volumes count":            {storagePod("1Gi", "1Gi", "", "", ""), use(0, 0, 2<<30+1), "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi."},
		"the larger of init":       {storagePod("1Gi", "", "4Gi", "", ""), use(1, 3<<30, 0), ""},
		"sidecars count":           {storagePod("1Gi", "", "", "1Gi", ""), use(1, 2<<30, 0), "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi."},
		"a node cannot do without": {critical, use(1<<30, 0, 0), ""},
	} {
		if got := Eviction(c.p, c.use); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for name, c := range map[string]struct {
		p    *corev1.Pod
		want bool
	}{
		"none": {storagePod("", "", "", "", ""), false}, "container": {storagePod("", "1Gi", "", "", ""), true}, "volume": {storagePod("", "", "", "", "1Gi"), true},
	} {
		if got := LimitsStorage(c.p); got != c.want {
			t.Errorf("limits of %s: %t", name, got)
		}
	}
}

// TestQOSOfNothing: who asks for none of what it may take is not guaranteed it.
func TestQOSOfNothing(t *testing.T) {
	for _, c := range []struct {
		request, limit string
		want           corev1.PodQOSClass
	}{
		{"", "", corev1.PodQOSBestEffort}, {"0", "", corev1.PodQOSBestEffort}, {"0", "0", corev1.PodQOSBestEffort},
		{"1", "", corev1.PodQOSBurstable}, {"1", "2", corev1.PodQOSBurstable}, {"0", "1", corev1.PodQOSBurstable},
		{"", "1", corev1.PodQOSGuaranteed}, {"1", "1", corev1.PodQOSGuaranteed},
	} {
		if got := QOS(qosPod(c.request, c.limit)); got != c.want {
			t.Errorf("request %q limit %q: %s, want %s", c.request, c.limit, got, c.want)
		}
	}
}
