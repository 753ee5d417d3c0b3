package manifest

import corev1 "k8s.io/api/core/v1"

// usersRules hold for a pod with users of its own (hostUsers: false), and for
// what only such a pod may have.
func (o *objectReader) usersRules(s *corev1.PodSpec, at string) {
	if s.HostUsers == nil || *s.HostUsers {
		for _, list := range []struct {
			name string
			all  []corev1.Container
		}{{"initContainers", s.InitContainers}, {"containers", s.Containers}} {
			for i := range list.all {
				if sc := list.all[i].SecurityContext; sc != nil && sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount {
					o.fault(indexPath(at+"."+list.name, i)+".securityContext.procMount", "`hostUsers` must be false to use `Unmasked`", "")
				}
			}
		}
		return
	}
	for _, shared := range []struct {
		is   bool
		name string
	}{{s.HostNetwork, "hostNetwork"}, {s.HostPID, "hostPID"}, {s.HostIPC, "hostIPC"}} {
		if shared.is {
			o.fault(at+"."+shared.name, "forbidden when `hostUsers` is false", "what is the node's belongs to the node's users")
		}
	}
}
