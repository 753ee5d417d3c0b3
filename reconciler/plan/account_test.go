package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

func serviceAccount(name string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
	}
}

// describeAccount says what of the pod's account is not what every pod has.
func describeAccount(s *corev1.PodSpec) string {
	out := ""
	if name := schema.AccountOf(s); name != schema.DefaultAccount {
		out += " account=" + name
	}
	for _, r := range s.ImagePullSecrets {
		out += " pull=" + r.Name
	}
	for _, v := range s.Volumes {
		if v.Name == tokenVolume {
			out += " token"
		}
	}
	return out
}

func TestWhoGetsTheAutomaticToken(t *testing.T) {
	yes, no := ptr.To(true), ptr.To(false)
	for _, c := range []struct {
		what    string
		name    string
		pod     *bool
		account *bool // of the account, which is declared unless undeclared
		lacking bool
		want    bool
	}{
		{what: "nobody says anything", want: false},
		{what: "nobody says anything, and default is not declared", lacking: true, want: false},
		{what: "the pod asks", pod: yes, want: true},
		{what: "the pod asks, and default is not declared", pod: yes, lacking: true, want: true},
		{what: "the account default asks", account: yes, want: true},
		{what: "the account default asks, the pod does not want", account: yes, pod: no, want: false},
		{what: "default is named", name: "default", want: false},
		{what: "an account is named", name: "robot", want: true},
		{what: "an account is named that is not there yet", name: "robot", lacking: true, want: true},
		{what: "an account is named that does not want", name: "robot", account: no, want: false},
		{what: "it does not want, the pod does", name: "robot", account: no, pod: yes, want: true},
		{what: "the pod does not want", name: "robot", pod: no, want: false},
	} {
		p := newCluster(t).planner
		if !c.lacking {
			a := serviceAccount("default")
			if c.name != "" {
				a.Name = c.name
			}
			a.AutomountServiceAccountToken = c.account
			p.SetDesired(schema.KeyOf(a), a)
		}
		s := barePod("one", "one:1").Spec
		s.ServiceAccountName, s.AutomountServiceAccountToken = c.name, c.pod
		manifest := *s.DeepCopy()
		p.identify("default", &s)
		if got := len(s.Volumes) == 1 && len(s.Containers[0].VolumeMounts) == 1; got != c.want {
			t.Errorf("%s: mounted %v", c.what, got)
		}
		if want := schema.AccountOf(&manifest); s.ServiceAccountName != want || s.DeprecatedServiceAccount != want {
			t.Errorf("%s: the account is %q and %q", c.what, s.ServiceAccountName, s.DeprecatedServiceAccount)
		}
		withoutAccount(&s, &manifest)
		s.DeprecatedServiceAccount = manifest.DeprecatedServiceAccount // the manifest's defaults keep it equal to the name
		if diff := cmp.Diff(manifest, s, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: what the manifest said is not found again: %s", c.what, diff)
		}
	}
}

func TestTheAutomaticTokenIsMountedAsInKubernetes(t *testing.T) {
	p := newCluster(t).planner
	s := corev1.PodSpec{
		ServiceAccountName: "robot",
		InitContainers:     []corev1.Container{{Name: "init"}},
		Containers: []corev1.Container{
			{Name: "main", VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access", MountPath: "/data"}}},
			{Name: "own", VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount/"}}},
		},
		Volumes: []corev1.Volume{{Name: "kube-api-access"}},
	}
	manifest := *s.DeepCopy()
	p.identify("default", &s)
	const name = "kube-api-access-x"
	mount := corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}
	want := *manifest.DeepCopy()
	want.DeprecatedServiceAccount = "robot"
	want.InitContainers[0].VolumeMounts = []corev1.VolumeMount{mount}
	want.Containers[0].VolumeMounts = append(want.Containers[0].VolumeMounts, mount)
	want.Volumes = append(want.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(int32(0o644)),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To(int64(3607))}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}})
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	made := *s.DeepCopy()
	withoutAccount(&s, &manifest)
	manifest.DeprecatedServiceAccount = "robot"
	if diff := cmp.Diff(manifest, s, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if len(made.Volumes) != 2 || len(made.Containers[0].VolumeMounts) != 2 {
		t.Error("what was made was changed in place")
	}
}
