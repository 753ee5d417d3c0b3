package access

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// A rig is an Access in a directory of its own, with a server that says the
// name of whom it let in.
type rig struct {
	*Access
	t   *testing.T
	dir string
	log *syncBuffer
	now *clock
}

// clock is a time that a test sets; it is safe for use by many goroutines.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newRig(t *testing.T, listen string, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), log: new(syncBuffer), now: &clock{at: time.Now()}}
	r.open(listen, change...)
	return r
}

func (r *rig) open(listen string, change ...func(*Options)) {
	r.t.Helper()
	o := Options{DataDir: r.dir, TLS: TLSOptions{Listen: listen}, Now: r.now.get, Logger: slog.New(slog.NewTextHandler(r.log, nil))}
	for _, c := range change {
		c(&o)
	}
	var err error
	if r.Access, err = Open(o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) token(role Role) string {
	r.t.Helper()
	text, err := os.ReadFile(TokenFile(r.dir, role))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	u, ok := UserFrom(r.Context())
	if !ok || r.Header.Get("Authorization") != "" {
		http.Error(w, "nobody, or the credential is still there", http.StatusTeapot)
		return
	}
	io.WriteString(w, u.Name+" "+string(u.Role)+" "+strings.Join(u.Groups, ","))
})

// serve starts a server behind Guard and returns its URL. It speaks TLS when the
// Access has a configuration for it.
func (r *rig) serve(h http.Handler) string {
	r.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	config := r.TLSConfig()
	if r.Plain() {
		config = nil
	}
	if config == nil {
		s.Start()
		r.t.Cleanup(s.Close)
		return s.URL
	}
	// As the daemon does it: httptest's own StartTLS would add a certificate.
	s.Listener.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	server := &http.Server{Handler: h, TLSConfig: config, ErrorLog: s.Config.ErrorLog}
	done := make(chan struct{})
	go func() { defer close(done); server.ServeTLS(l, "", "") }()
	r.t.Cleanup(func() { server.Close(); <-done })
	return "https://" + l.Addr().String()
}

// client trusts what CAFile holds and shows a certificate, if one is given.
func (r *rig) client(cert *tls.Certificate) *http.Client {
	r.t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	if file := r.CAFile(); file != "" {
		text, err := os.ReadFile(file)
		if err != nil || !config.RootCAs.AppendCertsFromPEM(text) {
			r.t.Fatalf("CA file: %v", err)
		}
	}
	if cert != nil {
		// Unlike Certificates it is shown whatever the server asks for.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// get asks for a URL, with an Authorization header unless it is "".
func (r *rig) get(c *http.Client, url, authorization string) (code int, body string) {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := c.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
