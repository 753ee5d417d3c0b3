package volume

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
)

var _ nodeagent.VolumePlaces = (*Volumes)(nil)

// Places lists the pod's emptyDirs on disk: what it may fill the node with. Who
// measures them holds them to their sizeLimit.
func (v *Volumes) Places(p *corev1.Pod) []nodeagent.Place {
	if checkUID(p.UID) != nil {
		return nil
	}
	var places []nodeagent.Place
	for i := range p.Spec.Volumes {
		vol := &p.Spec.Volumes[i]
		k, err := kindOf(vol)
		if err != nil || k != (kind{}) || checkName(vol.Name) != nil {
			continue
		}
		places = append(places, nodeagent.Place{UID: p.UID, Volume: vol.Name, Path: v.dir(p.UID, vol)})
	}
	return places
}
