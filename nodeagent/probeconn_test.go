package nodeagent

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// speaking serves connections one at a time: it reads the head of a request and
// writes the text, then closes; with no text it keeps silent until the other side
// closes.
func speaking(tb testing.TB, text string) (port int32) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	tb.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(c)
			for {
				line, err := in.ReadString('\n')
				if err != nil || line == "\r\n" {
					break
				}
			}
			if text == "" {
				in.ReadByte() //nolint:errcheck // the end of the connection is what is waited for
			}
			c.Write([]byte(text)) //nolint:errcheck // whoever asked may be gone
			c.Close()
		}
	}()
	return int32(l.Addr().(*net.TCPAddr).Port)
}

func probeAt(ctx context.Context, port int32) error {
	t := probeTarget{ip: "127.0.0.1", container: &corev1.Container{Name: "main"}}
	return probeHTTP(ctx, t, &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(port)})
}

// TestProbeAnswers: what a pod may say on one connection, and what the probe
// makes of it.
func TestProbeAnswers(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":                                  "",
		"HTTP/1.0 200 OK\r\n\r\nok":                                                       "",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n":                 "",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 9) + "HTTP/1.1 200 OK\r\n\r\n": "interim answers",
		"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nlater":                             "HTTP probe failed with statuscode: 503: later",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok":                                  "unexpected EOF",
		"SSH-2.0-x\r\n": "malformed HTTP",
		"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/\r\nContent-Length: 0\r\n\r\n":                "unsupported protocol scheme",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxProbeHeader) + "\r\n\r\n":                  "headers exceeded",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", 100000): "",
	} {
		err := probeAt(t.Context(), speaking(t, text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v; want %q", text, err, want)
		}
	}
}

// TestProbeSilence: a pod that takes the connection and says nothing has failed
// when the time is up, and that is the reason that is told.
func TestProbeSilence(t *testing.T) {
	port := speaking(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // in which it takes the connection
	defer cancel()
	began := time.Now()
	err := probeAt(ctx, port)
	if err == nil || !strings.HasSuffix(err.Error(), "context deadline exceeded") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestProbeOneConnection: each probe makes a connection, says that it is the only
// request of it, and leaves none open; a redirect on the same host is followed.
func TestProbeOneConnection(t *testing.T) {
	var closing []bool
	open := map[net.Conn]bool{}
	states := make(chan func(), 100)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		states <- func() { closing = append(closing, r.Close) }
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/there", http.StatusFound)
			return
		}
		fmt.Fprint(w, "ok")
	}))
	s.Config.ConnState = func(c net.Conn, to http.ConnState) {
		states <- func() { open[c] = to != http.StateClosed }
	}
	s.Start()
	for range 3 {
		if err := probeAt(t.Context(), int32(s.Listener.Addr().(*net.TCPAddr).Port)); err != nil {
			t.Error(err)
		}
	}
	s.Close() // waits for the connections' ends
	close(states)
	for f := range states {
		f()
	}
	if len(open) != 6 || len(closing) != 6 {
		t.Errorf("%d connections with %d requests, want 6 of each", len(open), len(closing))
	}
	for _, only := range closing {
		if !only {
			t.Error("a request did not say that it is the only one")
		}
	}
	for c, is := range open {
		if is {
			t.Errorf("%s is open", c.RemoteAddr())
		}
	}
}

// TestProbeSchemeMismatch: who asks with https for what speaks http is told so.
func TestProbeSchemeMismatch(t *testing.T) {
	target := probeTarget{ip: "127.0.0.1", container: &corev1.Container{Name: "main"}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	err := probeHTTP(ctx, target, &corev1.HTTPGetAction{Scheme: corev1.URISchemeHTTPS, Port: intstr.FromInt(s.Listener.Addr().(*net.TCPAddr).Port)})
	if err == nil || !strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		t.Errorf("%v", err)
	}
}

// BenchmarkProbe measures one probe, with the little that answers it.
func BenchmarkProbe(b *testing.B) {
	port := speaking(b, "HTTP/1.0 200 OK\r\n\r\nok")
	target := probeTarget{ip: "127.0.0.1", container: &corev1.Container{Name: "main"}}
	for name, p := range map[string]*corev1.Probe{
		"http": {ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(port)}}},
		"tcp":  {ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			probe := newProber(nil)
			before := processorTime(b)
			for b.Loop() {
				ctx, cancel := context.WithTimeout(b.Context(), time.Second)
				if err := probe(ctx, target, p); err != nil {
					b.Fatal(err)
				}
				cancel()
			}
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "µs-CPU/probe")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
