package main

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// verbs is one command line for each way to the server.
var verbs = []string{
	"get pods", "get pods -w", "get --raw /x", "describe pod x", "logs x", "exec x -- ls", "events", "wait pod/x --for=delete", "rollout status deploy/x", "rollout history deploy/x",
	"explain pods", "api-resources", "api-versions", "delete pod x", "auth can-i get pods", "auth whoami", "history", "why pod/x", "blame pod/x",
}

// closed is the address of a server that was there.
func closed(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestNobodyAnswers(t *testing.T) {
	url := closed(t)
	d := newDesk(t, url)
	want := "pawl: no answer from " + url + " (connection refused). Is the cluster up? Start it with: pawld up\n"
	for _, line := range verbs {
		d.wants(line, "", want, 1)
	}
	d.wants("version", "Client Version: dev\n", want, 1)
}

// TestServerGoesAway has everything cached that can be.
func TestServerGoesAway(t *testing.T) {
	s := newServer(t)
	s.on("GET /api/v1/namespaces/default/pods", podTable)
	d := newDesk(t, s.URL)
	d.pawl("get", "pods")
	s.Close()
	d.wants("get pods", "", "pawl: no answer from "+s.URL+" (connection refused). Is the cluster up? Start it with: pawld up\n", 1)
}

// TestServerDiesInTheMiddle cuts the answer short.
func TestServerDiesInTheMiddle(t *testing.T) {
	s := newServer(t)
	s.on("GET /api/v1/namespaces/default/pods/p", `{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "main"}]}, "status": {"phase": "Running"}}`)
	s.answer("GET /api/v1/namespaces/default/pods/p/log", answer{body: "one\n", header: map[string]string{"Content-Length": "100"}})
	newDesk(t, s.URL).wants("logs p -f", "one\n", "unexpected EOF\npawl: the connection to "+s.URL+" was lost\n", 1)
}

func TestNotThisMachine(t *testing.T) {
	d := newDesk(t, "http://nohost.invalid:7420")
	_, errs, code := d.pawl("get", "pods")
	if code != 1 || !strings.HasPrefix(errs, "pawl: no answer from http://nohost.invalid:7420 (") || !strings.HasSuffix(errs, "). Is the cluster up?\n") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

func TestWrongToken(t *testing.T) {
	s := newServer(t)
	s.token = "another"
	d := newDesk(t, s.URL)
	for _, line := range verbs {
		d.wants(line, "", "pawl: "+s.URL+" does not know you: the token is none of its own. Is it the right context? See: pawl context\n", 1)
	}
}

func TestTimeout(t *testing.T) {
	stop := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	defer s.Close()
	defer close(stop)
	newDesk(t, s.URL).wants("get pods --request-timeout=50ms", "", "pawl: no answer from "+s.URL+" (timed out). Is the cluster up? Start it with: pawld up\n", 1)
}

func TestTLS(t *testing.T) {
	s := unstarted()
	s.on("GET /api/v1/namespaces/default/pods", podTable)
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = quietLog()
	s.StartTLS()
	defer s.Close()
	d := newDesk(t, s.URL)
	d.wants("get pods", "", "pawl: "+s.URL+" cannot be trusted (its certificate is of no CA known here). Is it the right context? See: pawl context\n", 1)

	ca := filepath.Join(d.home, "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	d.wants("get pods --no-headers --ca-file "+ca, "web-1   Running\n", "", 0)
	config, err := contextFile{d.file()}.read()
	if err != nil {
		t.Fatal(err)
	}
	config.Contexts[0].CAFile = ca
	d.configure(config)
	d.wants("get pods --no-headers", "web-1   Running\n", "", 0)

	plainURL := "http" + strings.TrimPrefix(s.URL, "https")
	d.wants("get pods --token-file "+filepath.Join(d.home, "token")+" -s "+plainURL, "", "pawl: "+plainURL+" answers over https only. Is it the right context? See: pawl context\n", 1)
}

func TestUnreadableToken(t *testing.T) {
	d := newDesk(t, closed(t))
	if err := os.Remove(filepath.Join(d.home, "token")); err != nil {
		t.Fatal(err)
	}
	_, errs, code := d.pawl("get", "pods")
	if code != 1 || !strings.Contains(errs, filepath.Join(d.home, "token")) || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit code %d: %s", code, errs)
	}
}
