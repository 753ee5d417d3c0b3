package pod

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// ReasonEvicted is the pod's reason when the node took it down: it had more on
// the node's disk than it may.
const ReasonEvicted = "Evicted"

// A StorageUse is what a pod has on the node's disk, in bytes.
type StorageUse struct {
	Containers map[string]uint64 // writable layers and logs, by container
	Volumes    map[string]uint64 // emptyDirs on disk, by volume
}

// Total is all of it.
func (u StorageUse) Total() (sum uint64) {
	for _, n := range u.Containers {
		sum += n
	}
	for _, n := range u.Volumes {
		sum += n
	}
	return sum
}

// Eviction says for which of its limits the pod is to be evicted, in Kubernetes'
// words and order; "" for none. Pods that the node cannot do without stay.
func Eviction(p *corev1.Pod, u StorageUse) string {
	if critical(p) {
		return ""
	}
	for _, v := range p.Spec.Volumes {
		if v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.Sign() <= 0 {
			continue
		}
		if above(u.Volumes[v.Name], v.EmptyDir.SizeLimit) {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q.", v.Name, v.EmptyDir.SizeLimit.String())
		}
	}
	if limit := storageLimit(p); limit != nil && above(u.Total(), limit) {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s.", limit)
	}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		limit := c.Resources.Limits.StorageEphemeral()
		if limit.Sign() > 0 && above(u.Containers[c.Name], limit) {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q.", c.Name, limit.String())
		}
	}
	return ""
}

// LimitsStorage says whether Eviction can ever answer.
func LimitsStorage(p *corev1.Pod) bool {
	return storageLimit(p) != nil || slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault && v.EmptyDir.SizeLimit != nil
	})
}

func above(used uint64, limit *resource.Quantity) bool {
	return used > uint64(max(0, limit.Value()))
}

// storageLimit is what the pod's containers may have together: the sum of the
// limits there are, also when some have none, or that of the largest init
// container with the sidecars before it. nil: no container has a limit.
func storageLimit(p *corev1.Pod) *resource.Quantity {
	var sidecars, most, all resource.Quantity
	found := false
	limit := func(c *corev1.Container) (q resource.Quantity) {
		q, ok := c.Resources.Limits[corev1.ResourceEphemeralStorage]
		found = found || ok
		return q
	}
	larger := func(q resource.Quantity) {
		if q.Cmp(most) > 0 {
			most = q
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		q := limit(c)
		q.Add(sidecars)
		larger(q)
		if sidecar(c) {
			sidecars = q
		}
	}
	for i := range p.Spec.Containers {
		all.Add(limit(&p.Spec.Containers[i]))
	}
	all.Add(sidecars)
	larger(all)
	if !found {
		return nil
	}
	return &most
}

// critical says whether the node, or the cluster, needs the pod to work.
func critical(p *corev1.Pod) bool {
	return p.Spec.PriorityClassName == "system-node-critical" || p.Spec.PriorityClassName == "system-cluster-critical"
}

// evicted says whether the pod was taken down. One that had ended before stays
// what it was, also while its sidecars stop.
func (v *view) evicted() bool {
	if old := v.known.Previous; terminal(old.Phase) || old.Reason == ReasonEvicted {
		return old.Reason == ReasonEvicted
	}
	return v.known.Evicted != "" && !v.ended()
}

// evict ends what runs at once and removes all that the pod has on the disk. What
// is left of it is its status. The volumes go before the containers: when the
// disk is full, it is mostly they that fill it, and to remove a container takes
// room.
func (d *decision) evict() {
	switch {
	case d.stopAll(0) || d.waits(d.known.Removal):
	case !d.known.VolumesRemoved && len(d.seen.Containers) > 0:
		d.do(RemoveVolumes{})
	default:
		d.clear(0)
	}
}
