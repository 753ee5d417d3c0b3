package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// A bank has tokens: the one that was held, or the next.
type bank struct {
	objects
	serial int
	held   []string // what the volume held, at each question
	err    error
}

func (b *bank) Token(_ context.Context, p *corev1.Pod, t *corev1.ServiceAccountTokenProjection, have string) (string, error) {
	b.held = append(b.held, have)
	if b.err != nil {
		return "", b.err
	}
	return fmt.Sprintf("%s/%s/%d", p.UID, t.Audience, b.serial), nil
}

func fromTokens(name string, tokens ...corev1.ServiceAccountTokenProjection) corev1.Volume {
	p := &corev1.ProjectedVolumeSource{}
	for i := range tokens {
		p.Sources = append(p.Sources, corev1.VolumeProjection{ServiceAccountToken: &tokens[i]})
	}
	return source(name, corev1.VolumeSource{Projected: p})
}

func TestServiceAccountTokens(t *testing.T) {
	f := newFixture(t)
	f.configMap(schema.RootCAConfigMap, map[string]string{"ca.crt": "root"})
	b := &bank{objects: f.objects, serial: 1}
	v := fromTokens("id", corev1.ServiceAccountTokenProjection{Path: "token"}, corev1.ServiceAccountTokenProjection{Path: "deep/vault", Audience: "vault"})
	v.Projected.Sources = append(v.Projected.Sources, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: schema.RootCAConfigMap}}})
	p := newPod("u1", v)
	setup := func() {
		t.Helper()
		if err := f.Setup(t.Context(), p, b); err != nil {
			t.Fatal(err)
		}
	}
	setup()
	m := f.mounted(p)["/id"]
	if fileSystem(t, m.HostPath) != unix.TMPFS_MAGIC || !m.ReadOnly {
		t.Error("a token is not in read-only memory")
	}
	wantFiles(t, m.HostPath, map[string]string{"token": "0644 u1//1", "deep/vault": "0644 u1/vault/1", "ca.crt": "0644 root"})
	before, err := os.Readlink(filepath.Join(m.HostPath, dataLink))
	if err != nil {
		t.Fatal(err)
	}
	setup()
	if now, err := os.Readlink(filepath.Join(m.HostPath, dataLink)); err != nil || now != before {
		t.Errorf("nothing changed, and the files were turned from %s to %s: %v", before, now, err)
	}
	if strings.Join(b.held, " ") != "  u1//1 u1/vault/1" {
		t.Errorf("the volume said it held %q", b.held)
	}
	b.serial = 2
	setup()
	wantFiles(t, m.HostPath, map[string]string{"token": "0644 u1//2", "deep/vault": "0644 u1/vault/2", "ca.crt": "0644 root"})

	b.err = fmt.Errorf("failed to fetch token: %w", schema.ErrUnavailable)
	if err := f.Setup(t.Context(), p, b); !errors.Is(err, nodeagent.ErrOutdated) || !strings.Contains(err.Error(), "volume id: serviceAccountToken token: failed to fetch token") {
		t.Errorf("a volume with tokens, when no newer one can be had: %v", err)
	}
	wantFiles(t, m.HostPath, map[string]string{"token": "0644 u1//2", "deep/vault": "0644 u1/vault/2", "ca.crt": "0644 root"})
	other := newPod("u2", v)
	if err := f.Setup(t.Context(), other, b); !errors.Is(err, schema.ErrUnavailable) || errors.Is(err, nodeagent.ErrOutdated) {
		t.Errorf("a volume without: %v", err)
	}
	if _, err := os.Stat(filepath.Join(f.runDir, "u2")); err == nil {
		t.Error("a pod that waits for a token holds something")
	}
	f.remove(p)
}

// As Kubernetes has it: 0600 for the user of all containers, 0640 with fsGroup,
// else the volume's mode.
func TestWhoReadsAToken(t *testing.T) {
	f := newFixture(t)
	b := &bank{objects: f.objects}
	user := func(n int64) *corev1.SecurityContext { return &corev1.SecurityContext{RunAsUser: ptr.To(n)} }
	for i, c := range []struct {
		name   string
		change func(*corev1.PodSpec)
		want   string
	}{
		{"nobody says", func(*corev1.PodSpec) {}, "0644 0:0"},
		{"a mode", func(s *corev1.PodSpec) { s.Volumes[0].Projected.DefaultMode = ptr.To(int32(0o440)) }, "0440 0:0"},
		{"fsGroup", func(s *corev1.PodSpec) { s.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To(int64(2000))} }, "0640 0:2000"},
		{"the pod's user", func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(1000))}
		}, "0600 1000:0"},
		{"root", func(s *corev1.PodSpec) { s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(0))} }, "0600 0:0"},
		{"both", func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(1000)), FSGroup: ptr.To(int64(2000))}
		}, "0640 1000:2000"},
		{"the container's user", func(s *corev1.PodSpec) { s.Containers[0].SecurityContext = user(1001) }, "0600 1001:0"},
		{"two users", func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(1000))}
			s.InitContainers = []corev1.Container{{Name: "init", SecurityContext: user(0)}}
		}, "0644 0:0"},
		{"one of two says", func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = user(1000)
			s.Containers = append(s.Containers, corev1.Container{Name: "other"})
		}, "0644 0:0"},
	} {
		p := newPod(fmt.Sprintf("u%d", i), fromTokens("id", corev1.ServiceAccountTokenProjection{Path: "token"}))
		c.change(&p.Spec)
		for range 2 { // again: what is right is left alone
			if err := f.Setup(t.Context(), p, b); err != nil {
				t.Fatal(err)
			}
		}
		dir := f.mounted(p)["/id"].HostPath
		if got := ownership(t, filepath.Join(dir, "token")); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 3 {
			t.Errorf("%s: %v, %v", c.name, entries, err)
		}
	}
}

// A file of the volume that leads elsewhere is not read as the pod's token.
func TestHeldTokensAreReadBelowTheVolume(t *testing.T) {
	f := newFixture(t)
	secret := filepath.Join(f.dir, "secret")
	if err := os.WriteFile(secret, []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(f.dir, "volume")
	if err := os.MkdirAll(filepath.Join(dir, "..1"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{dataLink: "..1", "..1/token": secret, "..1/up": "../../secret"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []string{"token", "up", "none"} {
		if got := heldToken(dir, at); got != "" {
			t.Errorf("%s: %q", at, got)
		}
	}
}

func TestANodeWithoutAccountsRefusesTokens(t *testing.T) {
	f := newFixture(t)
	p := newPod("u1", fromTokens("id", corev1.ServiceAccountTokenProjection{Path: "token"}))
	if err := f.Setup(t.Context(), p, f.objects); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("%v", err)
	}
	p = newPod("u1", fromTokens("id", corev1.ServiceAccountTokenProjection{Path: "../token"}))
	if err := f.Setup(t.Context(), p, &bank{objects: f.objects}); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("%v", err)
	}
}
