package reconciler

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/pawl-project/pawl/reconciler/access"
)

// TestEither asks one port with TLS, without, and with silence.
func TestEither(t *testing.T) {
	a, err := access.Open(access.Options{DataDir: t.TempDir(), TLS: access.TLSOptions{Listen: "127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	how := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "TLS %v, %d bytes", r.TLS != nil, len(body))
	})
	server := newServer(withTLS(how), nil, 100, slog.New(slog.DiscardHandler))
	server.ConnContext, server.ReadHeaderTimeout = withConn, 300*time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveOn(ctx, eitherListener{l, a.TLSConfig()}, server) }()

	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // access has its own tests
	for _, scheme := range []string{"http", "https", "http", "https"} {
		response, err := client.Post(scheme+"://"+l.Addr().String(), "text/plain", io.LimitReader(zeros{}, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if want := fmt.Sprintf("TLS %v, %d bytes", scheme == "https", 1<<20); string(got) != want {
			t.Errorf("%s: %s, want %s", scheme, got, want)
		}
	}
	// Who says nothing is sent away, and one who says half a handshake too.
	half, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	if _, err := half.Write([]byte{22, 3, 1}); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"silent": silent, "half": half} {
		conn.SetReadDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck // the read fails then
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// One that is open and silent does not hold up the end.
	last, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server does not end")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
