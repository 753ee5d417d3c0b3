package kv

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

func newSealer(t *testing.T, file string) *Sealer {
	t.Helper()
	s, err := NewSealer(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func someSecret(name string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{"a": "b"}},
		Type:       corev1.SecretTypeOpaque,
		Data:       data,
	}
}

func TestSealedSecretOpensAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys", "cluster.age")
	s := newSealer(t, file)
	plain := someSecret("password", map[string][]byte{"user": []byte("ali"), "password": []byte("opensesame")})
	sealed, err := s.Seal(plain)
	if err != nil {
		t.Fatal(err)
	}
	if raw := encode(t, sealed); bytes.Contains(raw, []byte("opensesame")) || bytes.Contains(raw, []byte("b3BlbnNlc2FtZQ")) || !bytes.Contains(raw, []byte("Opaque")) {
		t.Errorf("sealed: %s", raw)
	}
	if again, err := s.Seal(sealed); err != nil || again != sealed {
		t.Errorf("sealing what is sealed: %v", err)
	}
	open, err := newSealer(t, file).Open(sealed) // with the key from the file
	if err != nil || !equality.Semantic.DeepEqual(open, plain) {
		t.Errorf("opened: %+v, %v", open, err)
	}
	if same, err := s.Open(plain); err != nil || same != plain {
		t.Errorf("opening what is not sealed: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Errorf("beside the key lie %v (%v)", entries, err)
	}
}

func TestStringDataIsSealedToo(t *testing.T) {
	s := newSealer(t, filepath.Join(t.TempDir(), "cluster.age"))
	plain := someSecret("password", map[string][]byte{"a": []byte("1"), "b": []byte("2")})
	plain.StringData = map[string]string{"b": "opensesame"}
	sealed, err := s.Seal(plain)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(encode(t, sealed), []byte("opensesame")) {
		t.Error("stringData stands in the clear")
	}
	open, err := s.Open(sealed)
	if err != nil || !maps.EqualFunc(open.Data, map[string][]byte{"a": []byte("1"), "b": []byte("opensesame")}, bytes.Equal) {
		t.Errorf("opened: %v, %v", open.Data, err)
	}
}

func TestSameTellsContentWithoutOpening(t *testing.T) {
	dir := t.TempDir()
	s := newSealer(t, filepath.Join(dir, "cluster.age"))
	plain := someSecret("password", map[string][]byte{"k": []byte("v")})
	sealed, err := s.Seal(plain)
	if err != nil {
		t.Fatal(err)
	}
	written := plain.DeepCopy()
	written.Data, written.StringData = nil, map[string]string{"k": "v"}
	empty, err := s.Seal(someSecret("password", nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		stored, plain *corev1.Secret
		want          bool
	}{
		"the same":               {sealed, plain, true},
		"the same by stringData": {sealed, written, true},
		"another value":          {sealed, someSecret("password", map[string][]byte{"k": []byte("w")}), false},
		"another key":            {sealed, someSecret("password", map[string][]byte{"l": []byte("v")}), false},
		"another name":           {sealed, someSecret("other", map[string][]byte{"k": []byte("v")}), false},
		"no data":                {sealed, someSecret("password", nil), false},
		"no data, sealed":        {empty, someSecret("password", map[string][]byte{}), true},
		"stored in the clear":    {plain, plain, false},
	} {
		if got := s.Same(c.stored, c.plain); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if newSealer(t, filepath.Join(dir, "another.age")).Same(sealed, plain) {
		t.Error("another cluster's key tells the content")
	}
}

func TestSealedSecretOpensNowhereElse(t *testing.T) {
	dir := t.TempDir()
	s := newSealer(t, filepath.Join(dir, "cluster.age"))
	sealed, err := s.Seal(someSecret("password", map[string][]byte{"k": []byte("opensesame")}))
	if err != nil {
		t.Fatal(err)
	}
	moved, damaged := sealed.DeepCopy(), sealed.DeepCopy()
	moved.Name = "mine"
	damaged.Data[sealedData][len(damaged.Data[sealedData])-1] ^= 1
	cut := sealed.DeepCopy()
	cut.Data[sealedData] = cut.Data[sealedData][:50]
	for name, c := range map[string]struct {
		sealer *Sealer
		secret *corev1.Secret
	}{
		"moved to another Secret": {s, moved},
		"damaged":                 {s, damaged},
		"cut":                     {s, cut},
		"another cluster's key":   {newSealer(t, filepath.Join(dir, "another.age")), sealed},
	} {
		open, err := c.sealer.Open(c.secret)
		if !errors.Is(err, schema.ErrRefused) || open != nil || strings.Contains(err.Error(), "opensesame") {
			t.Errorf("%s: %v, %v", name, open, err)
		}
	}
}

func TestDamagedKeyIsSaidAndNotShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cluster.age")
	for _, content := range []string{"", "garbage", "AGE-SECRET-KEY-1GARBAGE"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewSealer(file); err == nil || content != "" && strings.Contains(err.Error(), content) {
			t.Errorf("key %q: %v", content, err)
		}
	}
}
