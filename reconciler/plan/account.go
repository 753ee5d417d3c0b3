package plan

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

// The automatic mount, as Kubernetes' admission makes it: a new pod gets a volume
// with the token of its service account, what vouches for the API, and its
// namespace, at one path in every container.
const (
	tokenVolume = "kube-api-access"
	tokenPath   = "/var/run/secrets/kubernetes.io/serviceaccount"
	// tokenSeconds is an hour and the seven seconds by which Kubernetes tells an
	// automatic token from one that was asked for.
	tokenSeconds = 3607
)

func (p *Planner) setAccount(k schema.ObjectKey, o schema.Object) {
	if a, ok := o.(*corev1.ServiceAccount); ok {
		p.accounts[k] = a
	} else {
		delete(p.accounts, k)
	}
}

// identify gives a new pod what its service account says, as it is now: one that
// changes later changes no pods that are there.
func (p *Planner) identify(namespace string, s *corev1.PodSpec) {
	asked := automatic(s)
	name := schema.AccountOf(s)
	a := p.accounts[schema.ObjectKey{Kind: schema.ServiceAccounts, Namespace: namespace, Name: name}]
	s.ServiceAccountName, s.DeprecatedServiceAccount = name, name
	if a != nil && len(s.ImagePullSecrets) == 0 {
		s.ImagePullSecrets = slices.Clone(a.ImagePullSecrets)
	}
	if s.AutomountServiceAccountToken == nil && a != nil && a.AutomountServiceAccountToken != nil {
		asked = *a.AutomountServiceAccountToken
	}
	if asked {
		mountToken(s)
	}
}

// automatic says whether a pod asks for the mount, when its account says nothing.
// In Kubernetes every pod does. Here one does that names an account: the account
// that nobody named may do nothing, and each token is a credential in a container
// and a reason for which a pod cannot start without its control plane.
func automatic(s *corev1.PodSpec) bool {
	if s.AutomountServiceAccountToken != nil {
		return *s.AutomountServiceAccountToken
	}
	return schema.AccountOf(s) != schema.DefaultAccount
}

// mountToken adds the volume, and a mount to each container that has none there.
func mountToken(s *corev1.PodSpec) {
	name := tokenVolume
	for slices.ContainsFunc(s.Volumes, func(v corev1.Volume) bool { return v.Name == name }) {
		name += "-x"
	}
	used := false
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			c := &list[i]
			if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return path.Clean("/"+m.MountPath) == tokenPath }) {
				continue
			}
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenPath})
			used = true
		}
	}
	if used {
		s.Volumes = append(s.Volumes, tokenVolumeNamed(name))
	}
}

func tokenVolumeNamed(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To(int64(tokenSeconds)), Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: schema.RootCAConfigMap},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}

// withoutAccount takes from a spec what identify gave to a pod of the manifest.
func withoutAccount(s, manifest *corev1.PodSpec) {
	if manifest.ServiceAccountName == "" && s.ServiceAccountName == schema.DefaultAccount {
		s.ServiceAccountName, s.DeprecatedServiceAccount = "", ""
	}
	if len(manifest.ImagePullSecrets) == 0 {
		s.ImagePullSecrets = nil
	}
	given := func(name string) bool {
		return strings.HasPrefix(name, tokenVolume) &&
			!slices.ContainsFunc(manifest.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	}
	i := slices.IndexFunc(s.Volumes, func(v corev1.Volume) bool { return given(v.Name) })
	if i < 0 {
		return
	}
	s.Volumes = slices.Delete(slices.Clone(s.Volumes), i, i+1)
	for _, list := range []*[]corev1.Container{&s.InitContainers, &s.Containers} {
		*list = slices.Clone(*list)
		for i := range *list {
			c := &(*list)[i]
			c.VolumeMounts = slices.DeleteFunc(slices.Clone(c.VolumeMounts), func(m corev1.VolumeMount) bool { return given(m.Name) })
		}
	}
}
