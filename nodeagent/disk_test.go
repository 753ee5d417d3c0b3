package nodeagent

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// Objects' names may be longer than a file's may be.
func TestDiskKeepsLongNames(t *testing.T) {
	d, err := openDisk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var keys []schema.ObjectKey
	for _, end := range []string{"a", "b"} {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: strings.Repeat("s", 63), Name: strings.Repeat("n", 252) + end}}
		k := schema.ObjectKey{Kind: schema.Secrets, Namespace: s.Namespace, Name: s.Name}
		if err := d.putObject(k, s); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	k, err := d.load(slog.New(slog.DiscardHandler))
	if err != nil || len(k.objects.Secrets) != 2 || k.objects.Secrets[0].Name == k.objects.Secrets[1].Name {
		t.Errorf("%+v, %v", k.objects.Secrets, err)
	}
	for _, k := range keys {
		if err := d.forgetObject(k); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(d.objects); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestDiskKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	d, err := openDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u1"}}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a.b"}, Data: map[string][]byte{"k": []byte("v")}}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}}
	secret := schema.ObjectKey{Kind: schema.Secrets, Namespace: "ns", Name: "a.b"}
	for _, err := range []error{
		d.putPod(schema.Assignment{Node: "n1", Pod: *p}), d.putStatus("u1", corev1.PodStatus{Phase: corev1.PodRunning}), d.putObject(secret, s),
		d.putObject(schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "ns", Name: "c"}, m),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// What a crash or a bad disk leaves must not keep the rest from being read.
	for name, text := range map[string]string{"pods/u2.json.new": "{", "pods/u3.json": "{", "pods/u4.json": `{"pod":{"metadata":{"uid":"other"}}}`, "status/u1.json.new": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	k, err := d.load(slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if len(k.pods) != 1 || k.pods[0].Pod.Name != "web" || k.pods[0].Node != "n1" || k.pods[0].status.Phase != corev1.PodRunning {
		t.Errorf("pods: %+v", k.pods)
	}
	if len(k.objects.Secrets) != 1 || string(k.objects.Secrets[0].Data["k"]) != "v" || len(k.objects.ConfigMaps) != 1 {
		t.Errorf("objects: %+v", k.objects)
	}
	if n := strings.Count(log.String(), "set aside"); n != 2 {
		t.Errorf("%d files set aside, want 2: %s", n, &log)
	}
	if err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.forgetPod("u1"); err != nil {
		t.Fatal(err)
	}
	if err := d.forgetObject(secret); err != nil {
		t.Fatal(err)
	}
	if k, err = d.load(slog.New(slog.DiscardHandler)); err != nil || len(k.pods)+len(k.objects.Secrets) != 0 {
		t.Errorf("after forgetting: %+v, %v", k, err)
	}
	for _, uid := range []string{"../x", "", ".hidden", "a/b"} {
		p.UID = "x"
		if err := write(d.pods, uid, p, true); err == nil {
			t.Errorf("a record named %q was written", uid)
		}
	}
}
