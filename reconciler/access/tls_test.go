package access

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema"
)

func forceTLS(o *Options) { o.TLS.Force = true }

// issued is a user's certificate as a client holds it.
func (r *rig) issued(name string, role Role, ttl time.Duration) *tls.Certificate {
	r.t.Helper()
	c, err := IssueClientCertificate(r.dir, name, role, ttl, r.now.get())
	if err != nil {
		r.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		r.t.Fatal(err)
	}
	return &pair
}

// signed is a certificate that an authority signed for whatever the template says.
func signed(t *testing.T, ca *authority, template x509.Certificate, now time.Time, life time.Duration) *tls.Certificate {
	t.Helper()
	der, key, err := ca.issue(template, now, life)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestAClientCertificateIsAUser(t *testing.T) {
	r := newRig(t, "127.0.0.1:0", forceTLS)
	url := r.serve(r.Guard(whoami))
	if code, body := r.get(r.client(r.issued("ada", View, time.Hour)), url, ""); code != 200 || body != "ada view pawl:view,system:authenticated" {
		t.Errorf("%d %s", code, body)
	}
	if code, body := r.get(r.client(r.issued("eve", Admin, time.Hour)), url, ""); code != 200 || body != "eve admin pawl:admin,system:authenticated" {
		t.Errorf("%d %s", code, body)
	}
	// The header is the more deliberate of the two.
	if code, body := r.get(r.client(r.issued("eve", Admin, time.Hour)), url, "Bearer "+r.token(View)); code != 200 || !strings.HasPrefix(body, "view view") {
		t.Errorf("with a token: %d %s", code, body)
	}
	if code, _ := r.get(r.client(r.issued("eve", Admin, time.Hour)), url, "Bearer wrong"); code != 401 {
		t.Errorf("with a wrong token: %d", code)
	}
	// One that names no role is known, and may do nothing.
	ca := signed(t, r.certs.ca, x509.Certificate{Subject: pkix.Name{CommonName: "bob", Organization: []string{"system:masters"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, time.Now(), time.Hour)
	if code, body := r.get(r.client(ca), url, ""); code != 200 || body != "bob  system:authenticated,system:masters" {
		t.Errorf("%d %s", code, body)
	}
}

func TestBadClientCertificates(t *testing.T) {
	r := newRig(t, "127.0.0.1:0", forceTLS)
	url := r.serve(r.Guard(whoami))
	other, err := makeAuthority(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	// An authority that only calls itself as ours does.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	like := *r.certs.ca.cert
	like.PublicKey = nil
	der, err := x509.CreateCertificate(rand.Reader, &like, &like, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	likeCert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	forged := newAuthority(likeCert, key)
	asClient := func(cn string) x509.Certificate {
		return x509.Certificate{Subject: pkix.Name{CommonName: cn, Organization: []string{Admin.Group()}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	}
	asServer := asClient("eve")
	asServer.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serving, err := r.TLSConfig().GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	own, edKey := selfSigned(t)
	// A user may not sign for others.
	user := r.issued("mallory", View, time.Hour)
	leaf, err := x509.ParseCertificate(user.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	byUser := signed(t, newAuthority(leaf, user.PrivateKey.(*ecdsa.PrivateKey)), asClient("eve"), time.Now(), time.Hour)
	byUser.Certificate = append(byUser.Certificate, user.Certificate[0])
	now := time.Now()
	for name, cert := range map[string]*tls.Certificate{
		"another authority's":    signed(t, other, asClient("eve"), now, time.Hour),
		"a forged one":           signed(t, forged, asClient("eve"), now, time.Hour),
		"expired":                signed(t, r.certs.ca, asClient("eve"), now.Add(-2*time.Hour), time.Hour),
		"not yet good":           signed(t, r.certs.ca, asClient("eve"), now.Add(2*time.Hour), time.Hour),
		"a server's":             signed(t, r.certs.ca, asServer, now, time.Hour),
		"the door's own":         serving,
		"without a name":         signed(t, r.certs.ca, asClient(""), now, time.Hour),
		"self-signed":            {Certificate: [][]byte{own}, PrivateKey: edKey},
		"the authority's":        {Certificate: [][]byte{r.certs.ca.cert.Raw}, PrivateKey: r.certs.ca.key},
		"signed by another user": byUser,
	} {
		client := r.client(cert)
		if code, body := r.get(client, url, ""); code != 401 || !strings.Contains(body, `"Unauthorized"`) {
			t.Errorf("%s: %d %s", name, code, body)
		}
		if code, _ := r.get(client, url, "Bearer "+r.token(View)); code != 200 {
			t.Errorf("%s: a right token beside it gets %d", name, code)
		}
	}
}

func selfSigned(t *testing.T) ([]byte, ed25519.PrivateKey) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: newSerial(), Subject: pkix.Name{CommonName: "eve", Organization: []string{Admin.Group()}}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"pawl.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// A certificate that ends is refused in a connection that was opened before.
func TestACertificateEndsWithinAConnection(t *testing.T) {
	r := newRig(t, "127.0.0.1:0", forceTLS)
	url, client := r.serve(r.Guard(whoami)), r.client(r.issued("ada", View, time.Hour))
	if code, _ := r.get(client, url, ""); code != 200 {
		t.Fatal(code)
	}
	r.now.forward(2 * time.Hour)
	if code, _ := r.get(client, url, ""); code != 401 {
		t.Errorf("an ended certificate gets %d", code)
	}
}

func TestTheDoorIsVouchedForByItsAuthority(t *testing.T) {
	r := newRig(t, "0.0.0.0:7420", func(o *Options) { o.TLS.Names = []string{"Pawl.example.org", "192.0.2.7", "2001:db8::7"} })
	if r.URL() != "https://127.0.0.1:7420" || r.CAFile() != CAFile(r.dir) {
		t.Errorf("%s, %s", r.URL(), r.CAFile())
	}
	url := r.serve(r.Guard(whoami))
	response, err := r.client(nil).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.ProtoMajor != 2 {
		t.Errorf("speaks %s", response.Proto)
	}
	leaf := response.TLS.PeerCertificates[0]
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", machine, "pawl.example.org", "192.0.2.7", "2001:db8::7"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if unknown, err := new(http.Client).Get(url); err == nil {
		unknown.Body.Close()
		t.Error("a client that does not know the authority believes the door")
	}
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true})
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// addressed is a connection that arrived at an address.
type addressed struct {
	net.Conn
	local net.Addr
}

func (a addressed) LocalAddr() net.Addr { return a.local }

func TestTheServingCertificateIsRenewedAndLearnsAddresses(t *testing.T) {
	r := newRig(t, "0.0.0.0:7420")
	get := func(local string) *x509.Certificate {
		t.Helper()
		var hello *tls.ClientHelloInfo
		if local != "" {
			hello = &tls.ClientHelloInfo{Conn: addressed{local: &net.TCPAddr{IP: net.ParseIP(local)}}}
		}
		c, err := r.TLSConfig().GetCertificate(hello)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := get("")
	r.now.forward(59 * 24 * time.Hour)
	if !get("").Equal(first) {
		t.Error("renewed too early")
	}
	r.now.forward(2 * 24 * time.Hour)
	second := get("")
	if second.Equal(first) || r.now.get().After(first.NotAfter.Add(-28*24*time.Hour)) {
		t.Error("not renewed well before its end")
	}
	third := get("10.1.2.3")
	if third.VerifyHostname("10.1.2.3") != nil || !get("10.1.2.3").Equal(third) || !get("127.0.0.1").Equal(third) {
		t.Error("an address of this machine is not learned, or a new certificate is made each time")
	}
	for i := range 3 * mostOwnAddresses {
		get(net.IPv4(10, 9, byte(i>>8), byte(i)).String())
	}
	if n := len(get("").IPAddresses); n > mostOwnAddresses+4 {
		t.Errorf("%d addresses in the certificate", n)
	}
	// Its last one ends with the authority, and is not made anew for each client.
	r.now.forward(authorityLife - 80*24*time.Hour)
	if last := get(""); !last.NotAfter.Equal(r.certs.ca.cert.NotAfter) || !get("").Equal(last) {
		t.Errorf("the last one ends %s, the authority %s", last.NotAfter, r.certs.ca.cert.NotAfter)
	}
}

func TestPlainHTTPIsForLoopbackOnly(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:7420": "http://127.0.0.1:7420",
		"127.9.9.9:1":    "http://127.9.9.9:1",
		"[::1]:7420":     "http://[::1]:7420",
		"localhost:7420": "http://localhost:7420",
		"0.0.0.0:7420":   "https://127.0.0.1:7420",
		"[::]:7420":      "https://127.0.0.1:7420",
		":7420":          "https://127.0.0.1:7420",
		"192.0.2.1:7420": "https://192.0.2.1:7420",
		"localhost.:1":   "https://localhost.:1",
		"example.org:1":  "https://example.org:1",
	} {
		a, err := Open(Options{DataDir: t.TempDir(), TLS: TLSOptions{Listen: listen}})
		if listen == "localhost.:1" {
			if !errors.Is(err, schema.ErrRefused) {
				t.Errorf("%s: %v", listen, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", listen, err)
			continue
		}
		plain := strings.HasPrefix(want, "http:")
		if a.URL() != want || a.Plain() != plain || a.CAFile() == "" || (a.RemoteURL() == "") != plain {
			t.Errorf("%s: %s, %s", listen, a.URL(), a.RemoteURL())
		}
	}
	for _, o := range []TLSOptions{{Listen: ""}, {Listen: "127.0.0.1"}, {Listen: "127.0.0.1:"}, {Listen: "0.0.0.0:1", Names: []string{"a b"}}, {Listen: "0.0.0.0:1", Names: []string{"https://x"}}, {Listen: "0.0.0.0:1", Names: []string{""}}, {Listen: "127.0.0.1:1", CertFile: "x"}, {Listen: "127.0.0.1:1", KeyFile: "x"}} {
		if _, err := Open(Options{DataDir: t.TempDir(), TLS: o}); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestTheAuthorityIsKept(t *testing.T) {
	r := newRig(t, "127.0.0.1:0", forceTLS)
	first, user := r.certs.ca.cert, r.issued("ada", View, time.Hour)
	r.open("127.0.0.1:0", forceTLS)
	if !r.certs.ca.cert.Equal(first) {
		t.Error("a restart makes a new authority")
	}
	if code, _ := r.get(r.client(user), r.serve(r.Guard(whoami)), ""); code != 200 {
		t.Errorf("after a restart the user gets %d", code)
	}
	if life := first.NotAfter.Sub(first.NotBefore); life < authorityLife || first.PublicKeyAlgorithm != x509.ECDSA || !first.IsCA {
		t.Errorf("%s, %s, CA %v", life, first.PublicKeyAlgorithm, first.IsCA)
	}
	key, cert := caKeyFile(r.dir), CAFile(r.dir)
	keyText, _ := os.ReadFile(key)
	certText, _ := os.ReadFile(cert)
	otherDir := t.TempDir()
	if _, err := makeAuthority(otherDir, time.Now()); err != nil {
		t.Fatal(err)
	}
	otherKey, _ := os.ReadFile(caKeyFile(otherDir))
	for name, change := range map[string]func() error{
		"another's key":      func() error { return os.WriteFile(key, otherKey, 0o600) },
		"no key":             func() error { return os.Remove(key) },
		"a broken key":       func() error { return os.WriteFile(key, keyText[:100], 0o600) },
		"a key others read":  func() error { return os.Chmod(key, 0o644) },
		"a broken cert":      func() error { return os.WriteFile(cert, certText[:100], 0o644) },
		"a key as cert":      func() error { return os.WriteFile(cert, keyText, 0o644) },
		"an authority's end": func() error { r.now.forward(authorityLife + time.Hour); return nil },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Options{DataDir: r.dir, TLS: TLSOptions{Listen: "127.0.0.1:0"}, Now: r.now.get})
		if err == nil || strings.Contains(err.Error(), string(keyText[40:80])) {
			t.Errorf("%s: %v", name, err)
		}
		os.WriteFile(key, keyText, 0o600)
		os.Chmod(key, 0o600)
		os.WriteFile(cert, certText, 0o644)
		if r.now.get().After(first.NotAfter) {
			r.now.forward(-authorityLife - time.Hour)
		}
	}
	// A machine that went down between the two has a key that was never used.
	os.Remove(cert)
	r.open("127.0.0.1:0", forceTLS)
}

func TestOnesOwnCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	write := func() []byte {
		der, key := selfSigned(t)
		text, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(writePrivate(certFile, certPEM(der)), writePrivate(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}))); err != nil {
			t.Fatal(err)
		}
		return der
	}
	first := write()
	r := newRig(t, "127.0.0.1:7420", func(o *Options) { o.TLS.CertFile, o.TLS.KeyFile = certFile, keyFile })
	if r.URL() != "https://pawl.example.org:7420" || r.CAFile() != certFile {
		t.Errorf("%s, %s", r.URL(), r.CAFile())
	}
	address := strings.TrimPrefix(r.serve(r.Guard(whoami)), "https://")
	served := func() []byte {
		t.Helper()
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Raw
	}
	if !slices.Equal(served(), first) {
		t.Error("not the given one is served")
	}
	second := write()
	if !slices.Equal(served(), second) {
		t.Error("the new one is not served")
	}
	if err := os.WriteFile(keyFile, []byte("half of a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(served(), second) || !slices.Equal(served(), second) {
		t.Error("the good one does not serve on")
	}
	if strings.Count(r.log.String(), "cannot be used") != 1 {
		t.Errorf("log: %s", r.log)
	}
	// Users' certificates are the cluster's all the same.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*r.issued("ada", View, time.Hour)}}}
	defer transport.CloseIdleConnections()
	if code, body := r.get(&http.Client{Transport: transport}, "https://"+address, ""); code != 200 || !strings.HasPrefix(body, "ada view") {
		t.Errorf("%d %s", code, body)
	}
	for _, wrong := range [][2]string{{certFile, keyFile}, {certFile, "/nowhere"}, {keyFile, certFile}} {
		if _, err := Open(Options{DataDir: r.dir, TLS: TLSOptions{Listen: "127.0.0.1:0", CertFile: wrong[0], KeyFile: wrong[1]}}); err == nil {
			t.Errorf("%v is accepted", wrong)
		}
	}
}

func TestCertificatesThatAreNotIssued(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	for _, x := range []struct {
		name string
		role Role
		ttl  time.Duration
	}{{"", View, time.Hour}, {"system:x", View, time.Hour}, {"ada", "", time.Hour}, {"ada", "root", time.Hour}, {"ada", View, 0}, {"ada", View, -time.Hour}} {
		if _, err := IssueClientCertificate(r.dir, x.name, x.role, x.ttl, time.Now()); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%+v: %v", x, err)
		}
	}
	if _, err := IssueClientCertificate(t.TempDir(), "ada", View, time.Hour, time.Now()); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("without an authority: %v", err)
	}
	if c, err := IssueClientCertificate(r.dir, "ada", View, 2*authorityLife, time.Now()); err != nil || c.Expires.After(r.certs.ca.cert.NotAfter) {
		t.Errorf("outlives its authority: %s %v", c.Expires, err)
	}
}
