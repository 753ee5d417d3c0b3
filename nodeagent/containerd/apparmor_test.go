package containerd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

func TestConfinement(t *testing.T) {
	loaded := filepath.Join(t.TempDir(), "profiles")
	if err := os.WriteFile(loaded, []byte("my (profile) (enforce)\nweb (complain)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := appArmor{enabled: true, load: func(string) error { return nil }, loaded: loaded}
	broken := appArmor{enabled: true, load: func(string) error { return errors.New("no apparmor_parser") }, loaded: loaded}
	profile := func(kind corev1.AppArmorProfileType, local *string) *corev1.AppArmorProfile {
		return &corev1.AppArmorProfile{Type: kind, LocalhostProfile: local}
	}
	for name, c := range map[string]struct {
		host    appArmor
		profile *corev1.AppArmorProfile
		want    string
		err     error
	}{
		"default":                      {with, nil, defaultConfinement, nil},
		"default without AppArmor":     {appArmor{}, nil, "", nil},
		"default that cannot load":     {broken, nil, "", schema.ErrUnavailable},
		"unconfined":                   {with, profile(corev1.AppArmorProfileTypeUnconfined, nil), "unconfined", nil},
		"unconfined without AppArmor":  {appArmor{}, profile(corev1.AppArmorProfileTypeUnconfined, nil), "", nil},
		"asked for without AppArmor":   {appArmor{}, profile(corev1.AppArmorProfileTypeRuntimeDefault, nil), "", schema.ErrRefused},
		"the node's":                   {with, profile(corev1.AppArmorProfileTypeLocalhost, ptr.To("web")), "web", nil},
		"the node's, a strange name":   {with, profile(corev1.AppArmorProfileTypeLocalhost, ptr.To("my (profile)")), "my (profile)", nil},
		"the node's that is not there": {with, profile(corev1.AppArmorProfileTypeLocalhost, ptr.To("we")), "we", schema.ErrNotFound},
		"the node's without a name":    {with, profile(corev1.AppArmorProfileTypeLocalhost, nil), "", schema.ErrRefused},
	} {
		got, err := security{apparmor: c.profile}.confinement(c.host)
		if got != c.want || c.err == nil && err != nil || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v; want %q, %v", name, got, err, c.want, c.err)
		}
	}
}
