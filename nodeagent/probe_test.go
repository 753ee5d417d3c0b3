package nodeagent

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func probeServer(t *testing.T, tls bool) (host string, port int) {
	h := http.NewServeMux()
	h.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "shop.example" || r.Header.Get("X-Probe") != "yes" || r.URL.RawQuery != "deep=1" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	h.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/bad", http.StatusFound) })
	h.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.9/", http.StatusFound)
	})
	h.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no database", http.StatusServiceUnavailable)
	})
	h.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := httptest.NewServer(h)
	if tls {
		s.Close()
		s = httptest.NewTLSServer(h)
	}
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err = strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return u.Hostname(), port
}

func get(path string, port intstr.IntOrString, scheme corev1.URIScheme) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
		Path: path, Port: port, Scheme: scheme,
		HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "shop.example"}, {Name: "X-Probe", Value: "yes"}},
	}}}
}

// boundPort is one on which nobody listens, nor anybody else on the machine begins to.
func boundPort(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return at.(*unix.SockaddrInet4).Port
}

func TestProbes(t *testing.T) {
	probe := newProber(nil)
	host, port := probeServer(t, false)
	_, secure := probeServer(t, true)
	nobody := boundPort(t)
	tcp := func(port intstr.IntOrString) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}}
	}
	target := probeTarget{ip: host, id: "c1", container: &corev1.Container{Name: "web", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: int32(port)}}}}
	for name, c := range map[string]struct {
		probe *corev1.Probe
		want  string // part of the error; "" for success
	}{
		"ok":            {get("/ok?deep=1", intstr.FromInt32(int32(port)), ""), ""},
		"named port":    {get("/ok?deep=1", intstr.FromString("http"), ""), ""},
		"https":         {get("/ok?deep=1", intstr.FromInt32(int32(secure)), corev1.URISchemeHTTPS), ""},
		"500s":          {get("/bad", intstr.FromInt32(int32(port)), ""), "statuscode: 503: no database"},
		"redirect":      {get("/moved", intstr.FromInt32(int32(port)), ""), "statuscode: 503"},
		"elsewhere":     {get("/away", intstr.FromInt32(int32(port)), ""), "Probe terminated redirects"},
		"slow":          {get("/slow", intstr.FromInt32(int32(port)), ""), "deadline exceeded"},
		"no such port":  {get("/ok", intstr.FromString("admin"), ""), `no port named "admin"`},
		"nobody":        {get("/ok", intstr.FromInt32(int32(nobody)), ""), "refused"},
		"tcp":           {tcp(intstr.FromString("http")), ""},
		"tcp to nobody": {tcp(intstr.FromInt32(int32(nobody))), "refused"},
		"exec": {&corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}},
			"not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			within := 20 * time.Second
			if name == "slow" {
				within = 500 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			err := probe(ctx, target, c.probe)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestProbeHeaders: what the manifest says of a header replaces our own word.
func TestProbeHeaders(t *testing.T) {
	var got http.Header
	var path string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, path = r.Header, r.URL.Path }))
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path      string
		headers   []corev1.HTTPHeader
		wantPath  string
		wantAgent []string
		want      []string // Accept
	}{
		"own words":            {"/", nil, "/", []string{"kube-probe/1.36 pawl"}, []string{"*/*"}},
		"manifest's":           {"/", []corev1.HTTPHeader{{Name: "user-agent", Value: "curl"}, {Name: "accept", Value: "text/plain"}}, "/", []string{"curl"}, []string{"text/plain"}},
		"nothing":              {"/", []corev1.HTTPHeader{{Name: "User-Agent"}, {Name: "Accept"}}, "/", nil, nil},
		"path that is no URL":  {"a:b/%zz", nil, "/a:b/%zz", []string{"kube-probe/1.36 pawl"}, []string{"*/*"}},
		"path without a slash": {"ok", nil, "/ok", []string{"kube-probe/1.36 pawl"}, []string{"*/*"}},
	} {
		got, path = nil, ""
		p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: c.path, Port: intstr.Parse(u.Port()), HTTPHeaders: c.headers}}}
		if err := newProber(nil)(t.Context(), probeTarget{ip: u.Hostname(), container: &corev1.Container{}}, p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if path != c.wantPath || !slices.Equal(got["User-Agent"], c.wantAgent) || !slices.Equal(got["Accept"], c.want) {
			t.Errorf("%s: asked for %q with User-Agent %q and Accept %q; want %q with %q and %q", name, path, got["User-Agent"], got["Accept"], c.wantPath, c.wantAgent, c.want)
		}
	}
}

// TestProbeAnswerIsBounded: a container that answers without end costs the agent
// no more than a little memory.
func TestProbeAnswerIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const most = 64 << 20
	said := make(chan int, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			said <- 0
			return
		}
		defer c.Close()
		n := 0
		for text := []byte("HTTP/1.1 200 OK\r\n"); err == nil && n < most; text = []byte("X: " + strings.Repeat("x", 4000) + "\r\n") {
			var more int
			more, err = c.Write(text)
			n += more
		}
		said <- n
	}()
	p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt(l.Addr().(*net.TCPAddr).Port)}}}
	err = newProber(nil)(t.Context(), probeTarget{ip: "127.0.0.1", container: &corev1.Container{}}, p)
	if n := <-said; err == nil || n >= most {
		t.Errorf("of a head without end %d bytes were taken: %v", n, err)
	}
}

// execRuntime answers for commands.
type execRuntime struct {
	Runtime
	code int
}

func (e execRuntime) Exec(context.Context, string, []string) (int, []byte, error) {
	return e.code, []byte("said\n"), nil
}

func TestExecProbe(t *testing.T) {
	p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
	if err := newProber(execRuntime{code: 0})(t.Context(), probeTarget{}, p); err != nil {
		t.Error(err)
	}
	if err := newProber(execRuntime{code: 2})(t.Context(), probeTarget{}, p); err == nil || !strings.Contains(err.Error(), "exited with 2: said") {
		t.Errorf("got %v", err)
	}
}
