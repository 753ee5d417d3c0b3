package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/pawl-project/pawl/schema"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	skew          = 5 * time.Minute // by which the clocks of two machines may differ
)

// CAFile holds the certificate of the instance's authority; anybody may read it.
func CAFile(dataDir string) string { return filepath.Join(dataDir, "ca.crt") }

func caKeyFile(dataDir string) string { return filepath.Join(dataDir, "keys", "ca.key") }

// An authority signs the certificates of one instance: its door's and its
// users'. Whoever has its key is administrator.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool // cert alone
}

// openAuthority reads the instance's authority, which is made at the first start.
func openAuthority(dataDir string, now time.Time) (*authority, error) {
	ca, err := loadAuthority(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		if ca, err = makeAuthority(dataDir, now); err != nil {
			return nil, fmt.Errorf("make the cluster's authority: %w", err)
		}
	}
	if err != nil {
		return nil, err
	}
	if !now.Before(ca.cert.NotAfter) {
		return nil, fmt.Errorf("the cluster's authority %s ended on %s: remove it to have a new one made, and hand out its certificate and the users' again: %w", CAFile(dataDir), ca.cert.NotAfter.Format(time.DateOnly), schema.ErrRefused)
	}
	return ca, nil
}

// loadAuthority fails with fs.ErrNotExist only when there is no certificate: a
// key without one was never used.
func loadAuthority(dataDir string) (*authority, error) {
	file := CAFile(dataDir)
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no certificate: %w", file, schema.ErrRefused)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", file, err, schema.ErrRefused)
	}
	key, err := loadKey(caKeyFile(dataDir))
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s: %w", caKeyFile(dataDir), file, schema.ErrRefused)
	}
	return newAuthority(cert, key), nil
}

// loadKey hides fs.ErrNotExist: a certificate's key that is gone is a fault.
func loadKey(file string) (*ecdsa.PrivateKey, error) {
	text, err := readPrivate(file, 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the authority's key %s is gone: bring it back, or remove the certificate to have a new authority made: %w", file, schema.ErrRefused)
	}
	if err != nil {
		return nil, fmt.Errorf("the authority's key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key: %w", file, schema.ErrRefused)
	}
	key, err := parseKey(block.Bytes)
	if err != nil { // the cause may repeat bytes of the key
		return nil, fmt.Errorf("%s holds no ECDSA key: %w", file, schema.ErrRefused)
	}
	return key, nil
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return key, nil
}

func makeAuthority(dataDir string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial := newSerial()
	template := &x509.Certificate{
		SerialNumber: serial,
		// A name of its own, so that a client which knows several clusters'
		// authorities never takes one for the other.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("pawl-ca-%x", serial.Bytes()[:4])},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyText, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(caKeyFile(dataDir)), 0o700); err != nil {
		return nil, err
	}
	// The key first: a certificate on disk always has one.
	if err := writePrivate(caKeyFile(dataDir), keyText); err != nil {
		return nil, err
	}
	if err := writeDurably(CAFile(dataDir), certPEM(der), 0o644); err != nil {
		return nil, err
	}
	return newAuthority(cert, key), nil
}

func newAuthority(cert *x509.Certificate, key *ecdsa.PrivateKey) *authority {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert: cert, key: key, pool: pool}
}

// issue signs a certificate for a new key. It does not outlive the authority.
func (ca *authority) issue(template x509.Certificate, now time.Time, life time.Duration) (der []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	template.SerialNumber = newSerial()
	template.NotBefore = now.Add(-skew)
	template.NotAfter = now.Add(life)
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err = x509.CreateCertificate(rand.Reader, &template, ca.cert, key.Public(), ca.key)
	return der, key, err
}

// newSerial is 128 random bits, the first of them never zero bytes.
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
