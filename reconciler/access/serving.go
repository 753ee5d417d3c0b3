package access

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pawl-project/pawl/schema"
)

const (
	servingLife  = 90 * 24 * time.Hour
	servingRenew = 30 * 24 * time.Hour // before its end

	mostOwnAddresses = 64 // of this machine, that a certificate is made for
)

// serving makes the door's certificate, in memory alone, and makes a new one
// well before the old one ends. Whatever address of this machine a client has
// reached is one of the certificate's names.
type serving struct {
	ca  *authority
	now func() time.Time

	mu      sync.Mutex // guards what follows
	dns     []string
	ips     []net.IP
	own     int // of ips, learned from connections
	current *tls.Certificate
}

// newServing takes the host of the listen address and further names and addresses.
func newServing(ca *authority, now func() time.Time, host string, more []string) (*serving, error) {
	s := &serving{ca: ca, now: now}
	names := []string{"localhost", "127.0.0.1", "::1"}
	if machine, err := os.Hostname(); err == nil && dnsForm.MatchString(machine) {
		names = append(names, machine)
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		names = append(names, host)
	}
	for _, n := range append(names, more...) {
		if !s.add(n) {
			return nil, fmt.Errorf("--tls-san %q: want a host name or an IP address: %w", n, schema.ErrRefused)
		}
	}
	return s, nil
}

var dnsForm = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*$`)

func (s *serving) add(name string) bool {
	if ip := net.ParseIP(name); ip != nil {
		if !slices.ContainsFunc(s.ips, ip.Equal) {
			s.ips = append(s.ips, ip)
		}
		return true
	}
	if len(name) > 253 || !dnsForm.MatchString(name) {
		return false
	}
	if name = strings.ToLower(name); !slices.Contains(s.dns, name) {
		s.dns = append(s.dns, name)
	}
	return true
}

// certificate is tls.Config's GetCertificate.
func (s *serving) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learn(hello)
	if s.fresh() {
		return s.current, nil
	}
	der, key, err := s.ca.issue(x509.Certificate{
		Subject:     pkix.Name{CommonName: "pawl"},
		DNSNames:    s.dns,
		IPAddresses: s.ips,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, s.now(), servingLife)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	s.current = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return s.current, nil
}

// learn adds the address of this machine that the client has reached.
func (s *serving) learn(hello *tls.ClientHelloInfo) {
	if hello == nil || hello.Conn == nil || s.own >= mostOwnAddresses {
		return
	}
	a, ok := hello.Conn.LocalAddr().(*net.TCPAddr)
	if !ok || slices.ContainsFunc(s.ips, a.IP.Equal) {
		return
	}
	s.ips = append(s.ips, a.IP)
	s.own++
	s.current = nil
}

// fresh says whether the certificate can serve on. One that ends with its
// authority cannot be had with a later end.
func (s *serving) fresh() bool {
	if s.current == nil {
		return false
	}
	now, leaf := s.now(), s.current.Leaf
	if now.Before(leaf.NotBefore) {
		return false
	}
	return now.Before(leaf.NotAfter.Add(-servingRenew)) || leaf.NotAfter.Equal(s.ca.cert.NotAfter)
}

// A pair is a certificate of one's own in two files, read again when they
// change. While they do not fit together, or are gone, the last good one serves.
type pair struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex // guards what follows
	seen    [2]fileState
	current *tls.Certificate
}

func openPair(certFile, keyFile string, log *slog.Logger) (*pair, error) {
	p := &pair{certFile: certFile, keyFile: keyFile, log: log}
	p.seen = p.states()
	var err error
	if p.current, err = p.read(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pair) states() [2]fileState {
	return [2]fileState{stateOf(p.certFile), stateOf(p.keyFile)}
}

func (p *pair) read() (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", p.certFile, p.keyFile, err)
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, fmt.Errorf("--tls-cert %s: %w", p.certFile, err)
		}
	}
	return &c, nil
}

// certificate is tls.Config's GetCertificate.
func (p *pair) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := p.states()
	if states == p.seen {
		return p.current, nil
	}
	c, err := p.read()
	if !passing(err) {
		p.seen = states
	}
	if err != nil {
		p.log.Error("the new certificate cannot be used, the old one serves on", "error", err)
		return p.current, nil
	}
	p.current = c
	p.log.Info("a new certificate is served", "ends", c.Leaf.NotAfter)
	return c, nil
}

// trusted says whether this machine trusts the certificate without being told to.
func (p *pair) trusted() bool {
	between := x509.NewCertPool()
	for _, der := range p.current.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	_, err := p.current.Leaf.Verify(x509.VerifyOptions{Intermediates: between})
	return err == nil
}
