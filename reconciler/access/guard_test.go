package access

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestOnlyARightCredentialComesIn(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	client, url := r.client(nil), r.serve(r.Guard(whoami))
	admin := r.token(Admin)
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, right := range []string{"Bearer " + admin, "bearer " + admin, "BEARER   " + admin, basic("x:" + admin), basic(":" + admin)} {
		if code, body := r.get(client, url, right); code != 200 || body != "admin admin pawl:admin,system:authenticated" {
			t.Errorf("%d %s", code, body)
		}
	}
	if code, body := r.get(client, url, "Bearer "+r.token(View)); code != 200 || body != "view view pawl:view,system:authenticated" {
		t.Errorf("%d %s", code, body)
	}
	for name, wrong := range map[string]string{
		"none":             "",
		"no scheme":        admin,
		"empty bearer":     "Bearer ",
		"scheme alone":     "Bearer",
		"a prefix":         "Bearer " + admin[:63],
		"half":             "Bearer " + admin[:32],
		"one more":         "Bearer " + admin + "0",
		"two words":        "Bearer " + admin + " " + admin,
		"a list":           "Bearer " + admin + ", Bearer " + admin,
		"capitals":         "Bearer " + strings.ToUpper(admin),
		"a tab":            "Bearer\t" + admin,
		"as user":          basic(admin + ":"),
		"no colon":         basic(admin),
		"not base64":       "Basic " + admin,
		"broken base64":    "Basic =" + basic("x:" + admin)[7:],
		"another scheme":   "Digest " + admin,
		"its hash":         fmt.Sprintf("Bearer %x", hashOf(admin)),
		"long":             "Bearer " + strings.Repeat("a", 60000),
		"the word":         "Bearer <nil>",
		"an empty secret":  basic("admin:"),
		"a name of a role": basic("admin:admin"),
	} {
		code, body := r.get(client, url+"/any/path", wrong)
		if code != 401 || strings.Contains(body, admin[:16]) {
			t.Errorf("%s: %d %s", name, code, body)
		}
		r.now.forward(time.Second) // another test is about the pace
	}
}

func TestAStrangerHearsUnauthorizedAndNothingElse(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	h := r.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let through") }))
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "BREW"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/api/v1/secrets", strings.NewReader("{}")))
		var s metav1.Status
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Code != 401 {
			t.Fatalf("%s: %d %s", method, w.Code, w.Body)
		}
		if s.Kind != "Status" || s.APIVersion != "v1" || s.Code != 401 || s.Reason != metav1.StatusReasonUnauthorized || s.Message != "Unauthorized" || s.Status != "Failure" {
			t.Errorf("%s: %+v", method, s)
		}
	}
}

// What no client library would send.
func TestRawRequests(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	address := strings.TrimPrefix(r.serve(r.Guard(whoami)), "http://")
	admin := "Authorization: Bearer " + r.token(Admin)
	for name, headers := range map[string][]string{
		"two headers, one right": {admin, "Authorization: Bearer x"},
		"the same twice":         {admin, admin},
		"a folded header":        {"Authorization: Bearer", " " + r.token(Admin)},
		"a space before colon":   {"Authorization : Bearer " + r.token(Admin)},
		"a zero byte":            {admin + "\x00"},
		"as a query":             {"X: y"},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "GET /x?token=%s&access_token=%s HTTP/1.1\r\nHost: x\r\n%s\r\nConnection: close\r\n\r\n", r.token(Admin), r.token(Admin), strings.Join(headers, "\r\n"))
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if response.Body.Close(); response.StatusCode != 401 && response.StatusCode != 400 && name != "a folded header" {
			t.Errorf("%s: %s", name, response.Status)
		}
		conn.Close()
	}
}

func TestGitIsAskedInItsOwnWay(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	client, url := r.client(nil), r.serve(r.Git(whoami))
	if code, _ := r.get(client, url, "Bearer "+r.token(Admin)); code != 200 {
		t.Errorf("the administrator gets %d", code)
	}
	if code, body := r.get(client, url, "Bearer "+r.token(View)); code != 403 {
		t.Errorf("a viewer gets %d %s", code, body)
	}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 401 || response.Header.Get("WWW-Authenticate") != `Basic realm="pawl"` {
		t.Errorf("%s %v", response.Status, response.Header)
	}
}

// Wrong attempts become slow and then turned away, right ones from the same
// address stay fast, and others notice nothing.
func TestWrongAttemptsAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "127.0.0.1:0", func(o *Options) { o.Now = time.Now })
		h := r.Guard(whoami)
		ask := func(from, token string) (int, time.Duration) {
			q := httptest.NewRequest("GET", "/api", nil)
			q.RemoteAddr = from
			q.Header.Set("Authorization", "Bearer "+token)
			w, start := httptest.NewRecorder(), time.Now()
			h.ServeHTTP(w, q)
			return w.Code, time.Since(start)
		}
		start := time.Now()
		for range 200 {
			if code, _ := ask("192.0.2.1:5", "wrong"); code != 401 {
				t.Fatalf("one after the other: %d", code)
			}
		}
		if took := time.Since(start); took < 35*time.Second {
			t.Errorf("200 wrong attempts took %s", took)
		}
		codes := make(chan int, 1000)
		for range cap(codes) {
			go func() { code, _ := ask("192.0.2.1:6", "wrong"); codes <- code }()
		}
		synctest.Wait()
		if code, took := ask("192.0.2.1:7", r.token(View)); code != 200 || took > 0 {
			t.Errorf("the right one: %d after %s", code, took)
		}
		if code, took := ask("192.0.2.2:7", "wrong"); code != 401 || took > 0 {
			t.Errorf("from elsewhere: %d after %s", code, took)
		}
		counts := map[int]int{}
		for range cap(codes) {
			counts[<-codes]++
		}
		if counts[401] > 15 || counts[401]+counts[429] != cap(codes) {
			t.Errorf("at once: %v", counts)
		}
		if lines := strings.Count(r.log.String(), "wrong credentials"); lines > 4 {
			t.Errorf("%d log lines:\n%s", lines, r.log)
		}
	})
}

// What a user has open ends with the credential, and only then.
func TestARequestEndsWithItsCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "127.0.0.1:0", func(o *Options) { o.Now = time.Now })
		h := r.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Hour):
			}
		}))
		open := func(change func(*http.Request)) chan time.Duration {
			q, took, start := httptest.NewRequest("GET", "/api", nil), make(chan time.Duration, 1), time.Now()
			change(q)
			go func() { h.ServeHTTP(httptest.NewRecorder(), q); took <- time.Since(start) }()
			return took
		}
		bearer := func(token string) func(*http.Request) {
			return func(q *http.Request) { q.Header.Set("Authorization", "Bearer "+token) }
		}
		made := func(name string, ttl time.Duration) string {
			secret, _, err := CreateToken(r.dir, name, Admin, ttl, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return secret
		}
		leaf, err := x509.ParseCertificate(r.issued("ada", View, time.Minute).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		for name, x := range map[string]struct {
			took  chan time.Duration
			after time.Duration
		}{
			"the administrator": {open(bearer(r.token(Admin))), time.Hour},
			"one without end":   {open(bearer(made("keeps", 0))), time.Hour},
			"one that ends":     {open(bearer(made("ends", 2*time.Minute))), 2 * time.Minute},
			"a certificate": {open(func(q *http.Request) {
				q.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
			}), time.Minute},
			"one that is revoked": {func() chan time.Duration {
				took := open(bearer(made("bad", 0)))
				time.AfterFunc(5*time.Minute, func() { RevokeToken(r.dir, "bad") })
				return took
			}(), 5 * time.Minute},
		} {
			if took := <-x.took; took < x.after || took > x.after+lookAgain {
				t.Errorf("%s: ended after %s, want %s", name, took, x.after)
			}
		}
	})
}

func TestAddressesAreForgotten(t *testing.T) {
	a := newAttempts(time.Now)
	for i := range 3 * mostAddresses {
		a.wrong(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
	}
	if len(a.byAddr) != mostAddresses || a.order.Len() != mostAddresses {
		t.Errorf("%d addresses, %d entries", len(a.byAddr), a.order.Len())
	}
	for _, same := range [][2]string{{"[2001:db8::1]:1", "[2001:db8::2:3]:9"}, {"192.0.2.1:1", "[::ffff:192.0.2.1]:2"}, {"[fe80::1%eth0]:1", "[fe80::2%eth1]:1"}, {"", "@"}} {
		if prefixOf(same[0]) != prefixOf(same[1]) {
			t.Errorf("%v are two", same)
		}
	}
	if prefixOf("192.0.2.1:1") == prefixOf("192.0.2.2:1") {
		t.Error("two addresses are one")
	}
}

// A stranger who announces a body and never sends it is answered all the same,
// and does not keep the connection.
func TestTheDoorDoesNotWaitForAStrangersBody(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	for name, h := range map[string]http.Handler{"api": r.Guard(whoami), "git": r.Git(whoami)} {
		for _, size := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
			server := httptest.NewServer(h)
			defer server.Close()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", size)
			in := bufio.NewReader(conn)
			response, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Errorf("%s, %s: %v", name, size, err)
				continue
			}
			_, err = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if response.StatusCode != http.StatusUnauthorized || err != nil {
				t.Errorf("%s, %s: %s %v", name, size, response.Status, err)
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s, %s: the connection is kept: %v", name, size, err)
			}
		}
	}
}
