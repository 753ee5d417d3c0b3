package access

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// What the door adds to every request: budget 10 µs.
func BenchmarkGuard(b *testing.B) {
	dir := b.TempDir()
	a, err := Open(Options{DataDir: dir, TLS: TLSOptions{Listen: "0.0.0.0:7420"}})
	if err != nil {
		b.Fatal(err)
	}
	var named string
	for i := range 100 {
		if named, _, err = CreateToken(dir, fmt.Sprintf("u%d", i), View, 0, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	admin, err := LoadToken(TokenFile(dir, Admin))
	if err != nil {
		b.Fatal(err)
	}
	issued, err := IssueClientCertificate(dir, "ada", View, time.Hour, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	pair, err := tls.X509KeyPair(issued.Cert, issued.Key)
	if err != nil {
		b.Fatal(err)
	}
	request := func(token string) *http.Request {
		r := httptest.NewRequest("GET", "/api/v1/pods", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		} else {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{pair.Leaf}}
		}
		return r
	}
	h := a.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for name, r := range map[string]*http.Request{"token": request(admin), "named": request(named), "certificate": request("")} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				h.ServeHTTP(nil, r)
			}
		})
	}
}
