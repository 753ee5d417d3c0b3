package access

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/pawl-project/pawl/schema"
)

// TLSOptions say how the door is reached.
type TLSOptions struct {
	Listen   string   // host:port; beyond loopback there is always TLS
	Force    bool     // TLS on loopback too
	Names    []string // further host names and addresses of the certificate
	CertFile string   // with KeyFile: a certificate of one's own
	KeyFile  string
}

// A face is what clients see of the door before they say who they are.
type face struct {
	url    string // as clients on this machine reach it, without a path
	remote string // as those on other machines do, as far as is known here
	caFile string // what vouches for it; "" when nothing needs to
	config *tls.Config
	plain  bool // HTTP without TLS is spoken too
}

func openFace(o Options, ca *authority) (face, error) {
	host, port, err := net.SplitHostPort(o.TLS.Listen)
	if err != nil || port == "" {
		return face{}, fmt.Errorf("--http %q: want host:port: %w", o.TLS.Listen, schema.ErrRefused)
	}
	if (o.TLS.CertFile == "") != (o.TLS.KeyFile == "") {
		return face{}, fmt.Errorf("--tls-cert and --tls-key go together: %w", schema.ErrRefused)
	}
	local := host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		local = "127.0.0.1"
	}
	f := face{
		plain: loopback(host) && !o.TLS.Force && o.TLS.CertFile == "",
		config: &tls.Config{
			MinVersion: tls.VersionTLS12,
			// Asked for and not demanded: most callers have a token. See certs.
			ClientAuth: tls.RequestClientCert,
			ClientCAs:  ca.pool,
		},
	}
	if o.TLS.CertFile == "" {
		s, err := newServing(ca, o.Now, host, o.TLS.Names)
		if err != nil {
			return face{}, err
		}
		f.config.GetCertificate, f.caFile = s.certificate, CAFile(o.DataDir)
	} else {
		p, err := openPair(o.TLS.CertFile, o.TLS.KeyFile, o.Logger)
		if err != nil {
			return face{}, err
		}
		f.config.GetCertificate = p.certificate
		if !p.trusted() {
			f.caFile = o.TLS.CertFile
		}
		local = p.nameFor(local)
	}
	f.url = "https://" + net.JoinHostPort(local, port)
	if f.plain {
		f.url = "http://" + net.JoinHostPort(local, port)
		return f, nil
	}
	f.remote = f.url
	if machine, err := os.Hostname(); err == nil && local == "127.0.0.1" && !loopback(host) && dnsForm.MatchString(machine) {
		f.remote = "https://" + net.JoinHostPort(machine, port)
	}
	return f, nil
}

// nameFor is host when the certificate is good for it, and else the first name
// that it is good for: whoever had it made knows that name to lead here.
func (p *pair) nameFor(host string) string {
	if p.current.Leaf.VerifyHostname(host) == nil {
		return host
	}
	i := slices.IndexFunc(p.current.Leaf.DNSNames, func(n string) bool { return !strings.HasPrefix(n, "*") })
	if i < 0 {
		return host
	}
	return p.current.Leaf.DNSNames[i]
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// TLSConfig is what the door speaks. Each call returns a copy.
func (a *Access) TLSConfig() *tls.Config { return a.face.config.Clone() }

// Plain says whether the door speaks HTTP without TLS too, on the same port. It
// does on a loopback address alone, for git and pawl; kubectl sends no token
// without TLS.
func (a *Access) Plain() bool { return a.face.plain }

// URL is the door's address for clients on this machine, such as https://127.0.0.1:7420.
func (a *Access) URL() string { return a.face.url }

// RemoteURL is its address for clients on other machines; "" on a loopback
// address, which they cannot reach. Where the door listens on every address it is made of
// the machine's name.
func (a *Access) RemoteURL() string { return a.face.remote }

// CAFile is the file of certificates that clients need to trust the door when
// they speak TLS; "" when what the machine trusts is enough.
func (a *Access) CAFile() string { return a.face.caFile }
