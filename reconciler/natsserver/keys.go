package natsserver

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// keys is the server's identity. It is made once; the store cannot be read
// without it, and credentials given out before stay valid as long as it is kept.
type keys struct {
	operator, system, control, nodes key
	signing                          key    // signs nodes' users within the scope of nodesAccount
	store                            string // encrypts JetStream's files
}

type key struct {
	pair   nkeys.KeyPair
	public string
}

// loadKeys reads the keys below dir and makes those that are missing.
func loadKeys(dir string) (*keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	k := new(keys)
	for _, x := range []struct {
		name string
		to   *key
		make func() (nkeys.KeyPair, error)
	}{
		{"operator.nk", &k.operator, nkeys.CreateOperator},
		{"system.nk", &k.system, nkeys.CreateAccount},
		{"control.nk", &k.control, nkeys.CreateAccount},
		{"nodes.nk", &k.nodes, nkeys.CreateAccount},
		{"nodes-signing.nk", &k.signing, nkeys.CreateAccount},
	} {
		var err error
		if *x.to, err = loadKey(filepath.Join(dir, x.name), x.make); err != nil {
			return nil, err
		}
	}
	store, err := loadSecret(filepath.Join(dir, "store.key"), func() ([]byte, error) {
		b := make([]byte, 32)
		_, err := rand.Read(b)
		return []byte(hex.EncodeToString(b)), err
	})
	if err != nil {
		return nil, err
	}
	if len(store) != 64 {
		return nil, fmt.Errorf("%s is damaged: want 64 hex digits", filepath.Join(dir, "store.key"))
	}
	k.store = store
	return k, nil
}

func loadKey(file string, create func() (nkeys.KeyPair, error)) (key, error) {
	seed, err := loadSecret(file, func() ([]byte, error) {
		pair, err := create()
		if err != nil {
			return nil, err
		}
		return pair.Seed()
	})
	if err != nil {
		return key{}, err
	}
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return key{}, fmt.Errorf("%s is damaged: %w", file, err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return key{}, fmt.Errorf("%s is damaged: %w", file, err)
	}
	return key{pair: pair, public: public}, nil
}

// loadSecret reads a file, or makes it with mode 0600.
func loadSecret(file string, create func() ([]byte, error)) (string, error) {
	text, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("keys: %w", err)
	}
	text, err = create()
	if err != nil {
		return "", fmt.Errorf("make %s: %w", file, err)
	}
	if err := writeSecret(file, append(text, '\n')); err != nil {
		return "", fmt.Errorf("keys: %w", err)
	}
	return string(text), nil
}

// WriteCredsFile writes the operator's credentials in the form that the nats
// CLI reads, with mode 0600; whoever reads meanwhile sees the old file or the new one.
func (s *Server) WriteCredsFile(path string) error {
	c, err := s.ControlCredentials()
	if err != nil {
		return err
	}
	text, err := jwt.FormatUserConfig(c.JWT, []byte(c.Seed))
	if err != nil {
		return fmt.Errorf("operator's credentials: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("operator's credentials: %w", err)
	}
	if err := writeSecret(path, text); err != nil {
		return fmt.Errorf("operator's credentials: %w", err)
	}
	return nil
}

// writeSecret puts a file in place at once, on disk before it has its name.
func writeSecret(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(text); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
