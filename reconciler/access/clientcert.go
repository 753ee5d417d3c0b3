package access

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// A ClientCertificate is a user's credential. Nothing of it is kept here: it is
// good until it ends, and cannot be revoked alone.
type ClientCertificate struct {
	Cert, Key, CA []byte // PEM; CA is what vouches for the door when it serves the cluster's certificate
	Expires       time.Time
}

// IssueClientCertificate signs a certificate with the authority of the instance
// in dataDir, which must have been started once.
func IssueClientCertificate(dataDir, name string, role Role, ttl time.Duration, now time.Time) (ClientCertificate, error) {
	if err := ValidateName(name); err != nil {
		return ClientCertificate{}, err
	}
	if _, err := ParseRole(string(role)); err != nil {
		return ClientCertificate{}, err
	}
	if ttl < time.Second {
		return ClientCertificate{}, fmt.Errorf("--ttl %s: want a second or more: %w", ttl, schema.ErrRefused)
	}
	ca, err := loadAuthority(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return ClientCertificate{}, fmt.Errorf("%s has no authority yet; pawld up makes it: %w", dataDir, schema.ErrNotFound)
	}
	if err != nil {
		return ClientCertificate{}, err
	}
	der, key, err := ca.issue(x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{role.Group()}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now, ttl)
	if err != nil {
		return ClientCertificate{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return ClientCertificate{}, err
	}
	keyText, err := keyPEM(key)
	if err != nil {
		return ClientCertificate{}, err
	}
	return ClientCertificate{Cert: certPEM(der), Key: keyText, CA: certPEM(ca.cert.Raw), Expires: cert.NotAfter}, nil
}

// mostVerified bounds the memory of certs.
const mostVerified = 1024

// certs knows users by their certificates. TLS only proves that a caller has the
// certificate's key; whether the certificate is one of ours is looked at here,
// with every request, so that one that ends does not live on in a connection
// and a bad one is answered with a 401 and not with a broken handshake.
type certs struct {
	ca *authority

	mu       sync.Mutex // guards verified
	verified map[[sha256.Size]byte]struct{}
}

func newCerts(ca *authority) *certs {
	return &certs{ca: ca, verified: map[[sha256.Size]byte]struct{}{}}
}

// find says whose certificate it is.
func (c *certs) find(cert *x509.Certificate, now time.Time) (User, bool) {
	if cert.Subject.CommonName == "" || cert.IsCA || now.Before(cert.NotBefore) || now.After(cert.NotAfter) || !c.ours(cert, now) {
		return User{}, false
	}
	return newUser(cert.Subject.CommonName, roleOf(cert.Subject.Organization), cert.Subject.Organization...), true
}

// ours remembers good signatures: to verify one takes as long as to serve a request.
func (c *certs) ours(cert *x509.Certificate, now time.Time) bool {
	id := sha256.Sum256(cert.Raw)
	c.mu.Lock()
	_, known := c.verified[id]
	c.mu.Unlock()
	if known {
		return true
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:       c.ca.pool,
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.verified) >= mostVerified {
		clear(c.verified)
	}
	c.verified[id] = struct{}{}
	return true
}

func roleOf(organizations []string) Role {
	for _, r := range []Role{Admin, View} {
		if slices.Contains(organizations, r.Group()) {
			return r
		}
	}
	return ""
}
