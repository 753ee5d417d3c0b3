package kv

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"filippo.io/age"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

const (
	// AnnotationSealed marks a Secret whose data is sealed. Its value tells equal
	// data from different without opening it, to those who have the cluster's key.
	AnnotationSealed = "pawl.dev/sealed"
	// sealedData is the one key that the data of a sealed Secret has.
	sealedData = "sealed.age"
)

// A Sealer seals and opens the data of Secrets with the cluster's key.
type Sealer struct {
	identity *age.X25519Identity
	mac      []byte
}

// sealed is what is encrypted: the data, and whose it is, so that sealed data
// moved to another Secret does not open there.
type sealed struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Data      map[string][]byte `json:"data"`
}

// NewSealer reads the cluster's key from an age identity file, or makes the
// file with mode 0600.
func NewSealer(identityFile string) (*Sealer, error) {
	text, err := os.ReadFile(identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = newIdentity(identityFile)
	}
	if err != nil {
		return nil, fmt.Errorf("cluster's key: %w", err)
	}
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		// The parser's error may quote the line, which is the key.
		return nil, fmt.Errorf("cluster's key %s is damaged: it holds no age identity", identityFile)
	}
	identity, ok := identities[0].(*age.X25519Identity)
	if !ok {
		return nil, fmt.Errorf("cluster's key %s: want an X25519 identity", identityFile)
	}
	mac := hmac.New(sha256.New, []byte(identity.String()))
	mac.Write([]byte("pawl.dev/sealed"))
	return &Sealer{identity: identity, mac: mac.Sum(nil)}, nil
}

func newIdentity(file string) ([]byte, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	text := []byte("# The cluster's key: it opens the Secrets of the store.\n# public key: " + identity.Recipient().String() + "\n" + identity.String() + "\n")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(text); err != nil {
		f.Close()
		return nil, err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	// A link, not a rename: of two who make the key at once one must fail.
	return text, os.Link(f.Name(), file)
}

// Seal returns a copy of a Secret with its data sealed; one that is sealed
// already is returned as it is. Type, labels and names stay readable.
func (s *Sealer) Seal(plain *corev1.Secret) (*corev1.Secret, error) {
	if isSealed(plain) {
		return plain, nil
	}
	text, err := json.Marshal(sealed{Namespace: plain.Namespace, Name: plain.Name, Data: dataOf(plain)})
	if err != nil {
		return nil, fmt.Errorf("seal secret %s/%s: %w", plain.Namespace, plain.Name, err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, s.identity.Recipient())
	if err != nil {
		return nil, fmt.Errorf("seal secret %s/%s: %w", plain.Namespace, plain.Name, err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("seal secret %s/%s: %w", plain.Namespace, plain.Name, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal secret %s/%s: %w", plain.Namespace, plain.Name, err)
	}
	c := plain.DeepCopy()
	c.StringData = nil
	c.Data = map[string][]byte{sealedData: out.Bytes()}
	c.Annotations = maps.Clone(c.Annotations)
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[AnnotationSealed] = s.sum(text)
	return c, nil
}

// Open returns a copy of a Secret with its data in the clear; one that is not
// sealed is returned as it is. The error wraps schema.ErrRefused when the data
// was sealed with another key, was damaged, or is another Secret's.
func (s *Sealer) Open(secret *corev1.Secret) (*corev1.Secret, error) {
	if !isSealed(secret) {
		return secret, nil
	}
	r, err := age.Decrypt(bytes.NewReader(secret.Data[sealedData]), s.identity)
	if err != nil {
		return nil, fmt.Errorf("open secret %s/%s: %w: %w", secret.Namespace, secret.Name, err, schema.ErrRefused)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("open secret %s/%s: %w: %w", secret.Namespace, secret.Name, err, schema.ErrRefused)
	}
	var in sealed
	if err := json.Unmarshal(text, &in); err != nil {
		// The error may quote what it read.
		return nil, fmt.Errorf("open secret %s/%s: its content is damaged: %w", secret.Namespace, secret.Name, schema.ErrRefused)
	}
	if in.Namespace != secret.Namespace || in.Name != secret.Name {
		return nil, fmt.Errorf("open secret %s/%s: its content is that of %s/%s: %w", secret.Namespace, secret.Name, in.Namespace, in.Name, schema.ErrRefused)
	}
	c := secret.DeepCopy()
	c.Data = in.Data
	delete(c.Annotations, AnnotationSealed)
	if len(c.Annotations) == 0 {
		c.Annotations = nil
	}
	return c, nil
}

// Same says whether a sealed Secret holds the data of a plain one. It does not
// open it, and looks at nothing but names and data.
func (s *Sealer) Same(stored, plain *corev1.Secret) bool {
	if !isSealed(stored) {
		return false // it must be sealed, whatever it holds
	}
	text, err := json.Marshal(sealed{Namespace: plain.Namespace, Name: plain.Name, Data: dataOf(plain)})
	if err != nil {
		return false
	}
	return stored.Namespace == plain.Namespace && stored.Name == plain.Name &&
		hmac.Equal([]byte(stored.Annotations[AnnotationSealed]), []byte(s.sum(text)))
}

func (s *Sealer) sum(text []byte) string {
	mac := hmac.New(sha256.New, s.mac)
	mac.Write(text)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func isSealed(s *corev1.Secret) bool {
	_, marked := s.Annotations[AnnotationSealed]
	_, data := s.Data[sealedData]
	return marked && data && len(s.Data) == 1
}

// dataOf is the data with stringData in its place, as Kubernetes merges them.
func dataOf(s *corev1.Secret) map[string][]byte {
	data := make(map[string][]byte, len(s.Data)+len(s.StringData))
	maps.Copy(data, s.Data)
	for k, v := range s.StringData {
		data[k] = []byte(v)
	}
	return data
}
