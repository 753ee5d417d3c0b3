package reconciler

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// hall serves on a free port until the test ends and returns the address.
func hall(t *testing.T, h http.Handler, connections int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveOn(ctx, l, newServer(h, nil, connections, slog.New(slog.DiscardHandler))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func asked(t *testing.T, conn net.Conn, request string) (status string, err error) {
	t.Helper()
	fmt.Fprint(conn, request)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.Status, err
}

const plainGet = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// Whoever opens many connections and says nothing loses the oldest of them;
// who is being served is not touched, and who comes is let in.
func TestSilentConnectionsAreBounded(t *testing.T) {
	const most = 16
	release := make(chan struct{})
	served := make(chan struct{}, 1)
	address := hall(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/watch" {
			defer hold(r)()
			served <- struct{}{}
			<-release
		}
		fmt.Fprintln(w, "ok")
	}), most)
	watch := dial(t, address)
	result := make(chan error, 1)
	go func() {
		status, err := asked(t, watch, "GET /watch HTTP/1.1\r\nHost: x\r\n\r\n")
		if err == nil && status != "200 OK" {
			err = errors.New(status)
		}
		result <- err
	}()
	<-served
	var silent []net.Conn
	for range 4 * most {
		silent = append(silent, dial(t, address))
	}
	// The last ones stay; each of the others is closed by the door.
	for i, conn := range silent[:len(silent)-most] {
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d is still open", i)
		}
	}
	if status, err := asked(t, silent[len(silent)-1], plainGet); err != nil || status != "200 OK" {
		t.Errorf("one that stays: %s %v", status, err)
	}
	if status, err := asked(t, dial(t, address), plainGet); err != nil || status != "200 OK" {
		t.Errorf("one that comes: %s %v", status, err)
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the watch: %v", err)
	}
}

func TestWatchesEndWithTheDaemon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	served := make(chan struct{})
	watch := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(served)
		<-r.Context().Done()
		fmt.Fprintln(w, "goodbye")
	})
	done := make(chan error, 1)
	go func() { done <- serveOn(ctx, l, newServer(watch, nil, 16, slog.New(slog.DiscardHandler))) }()
	conn := dial(t, l.Addr().String())
	fmt.Fprint(conn, plainGet)
	<-served
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if response, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || response.Body.Close() != nil {
		t.Errorf("the watch was cut and not ended: %v", err)
	}
}

func TestWhatTheDoorDoesNotListenTo(t *testing.T) {
	address := hall(t, said("x"), 16)
	for name, x := range map[string]struct{ request, status string }{
		"a huge header": {"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", "431"},
		"no host":       {"GET / HTTP/1.1\r\n\r\n", "400"},
		"two lengths":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"},
	} {
		if status, err := asked(t, dial(t, address), x.request); err != nil || !strings.HasPrefix(status, x.status) {
			t.Errorf("%s: %q %v", name, status, err)
		}
	}
	// HTTP/2 is for TLS only (the default). A watch is answered for as long as it
	// is wanted, so only the header has a limit.
	s := newServer(nil, nil, 1, slog.Default())
	if s.Protocols != nil || s.WriteTimeout != 0 || s.ReadTimeout != 0 || s.ReadHeaderTimeout == 0 || s.IdleTimeout == 0 {
		t.Errorf("%+v", s)
	}
}

// A body that does not come does not hold a connection for ever, whether or not
// the handler reads it; one that came leaves the answer its time.
func TestBodiesHaveTheirTime(t *testing.T) {
	const takes = 100 * time.Millisecond
	address := hall(t, inTime(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ignores" {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				http.Error(w, "no body", http.StatusRequestTimeout)
				return
			}
		}
		if r.URL.Path == "/late" {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(3 * takes):
			}
		}
		fmt.Fprintln(w, "ok")
	}), takes), 16)
	for path, want := range map[string]string{"/ignores": "200 OK", "/reads": "408 Request Timeout"} {
		request := "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
		if status, err := asked(t, dial(t, address), request); err != nil || status != want {
			t.Errorf("%s: %s %v", path, status, err)
		}
	}
	request := "POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
	if status, err := asked(t, dial(t, address), request); err != nil || status != "200 OK" {
		t.Errorf("one that came: %s %v", status, err)
	}
}
