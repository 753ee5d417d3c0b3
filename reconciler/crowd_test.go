package reconciler

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-project/pawl/reconciler/access"
)

// named are users told apart by a header, as Guard would by their credentials.
func named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := access.User{Name: r.Header.Get("Name"), Role: access.View}
		if strings.HasPrefix(u.Name, "admin") {
			u.Role = access.Admin
		}
		next.ServeHTTP(w, r.WithContext(access.WithUser(r.Context(), u)))
	})
}

// lasting answers what begins with /watch until the client goes.
func lasting(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/watch") {
		return
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// A guest asks a server as users do.
type guest struct {
	t       *testing.T
	client  *http.Client
	address string // with the scheme
}

func newGuest(t *testing.T, address string, secured *tls.Config) *guest {
	tr := &http.Transport{TLSClientConfig: secured, ForceAttemptHTTP2: secured != nil}
	t.Cleanup(tr.CloseIdleConnections)
	return &guest{t, &http.Client{Transport: tr}, address}
}

// An answer is open until the test ends or its Body is closed.
type openAnswer struct {
	Status     string
	StatusCode int
	Header     http.Header
	Body       io.ReadCloser
}

func (g *guest) asks(name, path string) openAnswer {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	g.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.address+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Name", name)
	response, err := g.client.Do(r)
	if err != nil {
		g.t.Fatalf("%s asks for %s: %v", name, path, err)
	}
	g.t.Cleanup(func() { response.Body.Close() })
	return openAnswer{response.Status, response.StatusCode, response.Header, response.Body}
}

// until asks again until the status is the one that is wanted.
func (g *guest) until(name, path string, status int) {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		response := g.asks(name, path)
		response.Body.Close()
		if response.StatusCode == status {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%s hears %s of %s, want %d", name, response.Status, path, status)
		}
	}
}

// fill has a user watch until it is turned away, and returns how many watches it got.
func (g *guest) fill(name string) (watches []openAnswer) {
	g.t.Helper()
	for {
		response := g.asks(name, "/watch")
		switch {
		case response.StatusCode == http.StatusOK:
			watches = append(watches, response)
			continue
		case response.StatusCode != http.StatusTooManyRequests:
			g.t.Fatalf("%s is turned away with %s", name, response.Status)
		case response.Header.Get("Retry-After") == "":
			g.t.Error("not told when to try again")
		}
		text, err := io.ReadAll(response.Body)
		if err != nil || len(watches) > 0 && !strings.Contains(string(text), fmt.Sprintf("user \\\"%s\\\" has %d requests open", name, len(watches))) {
			g.t.Errorf("%s %v", text, err)
		}
		return watches
	}
}

// Whoever watches all it can leaves the others their places: other users, more of
// them administrators, and pushes, whatever kind of connection is theirs.
func TestOneUserDoesNotFillTheDoor(t *testing.T) {
	c := newCrowd(room{viewers: 40, viewer: 24, admins: 56, admin: 30, git: 60})
	mux := http.NewServeMux()
	mux.Handle("/git/", c.git(http.HandlerFunc(lasting)))
	mux.Handle("/", named(c.people(http.HandlerFunc(lasting))))
	plain := "http://" + hall(t, mux, 64)
	secured := httptest.NewUnstartedServer(mux)
	open := newConnections(64)
	secured.Config.ConnState, secured.Config.ConnContext, secured.EnableHTTP2 = open.changed, open.know, true
	secured.StartTLS()
	t.Cleanup(secured.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secured.Certificate())

	for name, g := range map[string]*guest{
		"HTTP/1.1": newGuest(t, plain, nil),
		"HTTP/2":   newGuest(t, secured.URL, &tls.Config{RootCAs: roots}),
	} {
		t.Run(name, func(t *testing.T) {
			c.emptied(t)
			g := &guest{t, g.client, g.address}
			eve := g.fill("eve")
			if len(eve) != 20 {
				t.Errorf("eve has %d watches", len(eve))
			}
			var stop sync.WaitGroup
			for range 4 { // she goes on trying
				stop.Go(func() {
					for range 50 {
						g.asks("eve", "/watch").Body.Close()
					}
				})
			}
			for range 50 {
				if r := g.asks("ann", "/x"); r.StatusCode != http.StatusOK {
					t.Errorf("ann hears %s", r.Status)
				}
			}
			stop.Wait()
			if n := len(g.fill("ann")); n < 8 || n > 10 { // what she had before may still be leaving
				t.Errorf("ann has %d watches beside eve's", n)
			}
			for i := range 20 { // viewers fill their room
				g.fill(fmt.Sprintf("viewer%d", i))
			}
			if r := g.asks("zoe", "/x"); r.StatusCode != http.StatusTooManyRequests {
				t.Errorf("there was room for zoe: %s", r.Status)
			}
			if n := len(g.fill("admin1")); n != 8 {
				t.Errorf("admin1 has %d watches beside the viewers'", n)
			}
			for i := range 20 { // administrators too
				g.fill(fmt.Sprintf("admin-%d", i))
			}
			if r := g.asks("git", "/git/x"); r.StatusCode != http.StatusOK {
				t.Errorf("a push hears %s", r.Status)
			}
			for _, r := range eve {
				r.Body.Close()
			}
			g.until("zoe", "/x", http.StatusOK)

			var figures strings.Builder
			c.figures(&figures)
			if !strings.Contains(figures.String(), "\npawl_door_turned_away_total ") {
				t.Error(figures.String())
			}
		})
	}
	c.emptied(t) // and nothing is remembered of anybody
}

// emptied waits until everybody has left.
func (c *crowd) emptied(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		all, viewers, users := c.all, c.viewers, len(c.users)
		c.mu.Unlock()
		if all+viewers+users == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests, %d of viewers, %d users are left", all, viewers, users)
		}
	}
}

// Half a request, or one that no user made, keeps no place.
func TestStrangersFillNothing(t *testing.T) {
	const most = 16
	mux := http.NewServeMux()
	mux.HandleFunc("/stranger", lasting)
	mux.Handle("/", named(newCrowd(doorRoom).people(http.HandlerFunc(lasting))))
	address := hall(t, mux, most)
	ann := newGuest(t, "http://"+address, nil)
	watch := ann.asks("ann", "/watch")
	for i := range 4 * most {
		conn := dial(t, address)
		if _, err := io.WriteString(conn, []string{"GET /str", "GET /stranger HTTP/1.1\r\nHost: x\r\n\r\n"}[i%2]); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		g := newGuest(t, "http://"+address, nil)
		if r := g.asks("bob", "/x"); r.StatusCode != http.StatusOK {
			t.Error(r.Status)
		}
	}
	ended := make(chan error, 1)
	go func() { _, err := watch.Body.Read(make([]byte, 1)); ended <- err }()
	select {
	case err := <-ended:
		t.Errorf("ann's watch ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
}

// stranger is a connection from an address.
type stranger struct {
	net.Conn
	from   string
	closed bool
}

func (s *stranger) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s.from))
}

func (s *stranger) Close() error { s.closed = true; return nil }

// The address that has most strays loses them, not one that has few.
func TestAnAddressLosesItsOwnConnections(t *testing.T) {
	c := newConnections(8)
	var few, many []*stranger
	for i := range 3 {
		few = append(few, &stranger{from: fmt.Sprintf("192.0.2.%d:1", i)})
		c.changed(few[i], http.StateNew)
	}
	for i := range 100 { // of one network of IPv6
		many = append(many, &stranger{from: fmt.Sprintf("[2001:db8::%x]:1", i)})
		c.changed(many[i], http.StateNew)
	}
	for _, s := range few {
		if s.closed {
			t.Errorf("%s lost its connection", s.from)
		}
	}
	for i, s := range many {
		if s.closed != (i < 95) {
			t.Errorf("connection %d of the many: closed %v", i, s.closed)
		}
	}
	for _, s := range append(few, many...) {
		c.changed(s, http.StateClosed)
	}
	if len(c.open)+len(c.strays) != 0 {
		t.Errorf("%d connections and %d addresses are left", len(c.open), len(c.strays))
	}
}
