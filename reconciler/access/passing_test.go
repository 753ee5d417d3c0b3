package access

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// withoutFiles runs do while the process can open no file.
func withoutFiles(t *testing.T, do func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

// A daemon that had no file to spare when somebody asked reads the tokens at the
// next question: the file need not change for that.
func TestTokensThatCouldNotBeReadAreReadAgain(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	secret, _, err := CreateToken(r.dir, "ada", View, 0, r.now.get())
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Authorization", "Bearer "+secret)
	withoutFiles(t, func() {
		if u, ok := r.Authenticate(request); ok {
			t.Error("known without the file:", u)
		}
	})
	if _, ok := r.Authenticate(request); !ok {
		t.Errorf("not known ever after: %s", r.log)
	}
}

// The same of a certificate of one's own that was renewed then: the old one
// would serve until it ends.
func TestACertificateThatCouldNotBeReadIsReadAgain(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	renew := func(name string) {
		c, err := IssueClientCertificate(r.dir, name, View, time.Hour, r.now.get())
		if err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string][]byte{certFile: c.Cert, keyFile: c.Key} {
			if err := os.WriteFile(file+".new", text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
		}
	}
	renew("old")
	p, err := openPair(certFile, keyFile, r.Access.log)
	if err != nil {
		t.Fatal(err)
	}
	served := func() string {
		c, err := p.certificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.Subject.CommonName
	}
	renew("new")
	withoutFiles(t, func() {
		if name := served(); name != "old" {
			t.Error("served without the files:", name)
		}
	})
	if name := served(); name != "new" {
		t.Errorf("served ever after: %s", name)
	}
}
