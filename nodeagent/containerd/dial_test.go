package containerd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// TestDial: what listens inside the pod is reached by its loopback; the host's own
// loopback is another.
func TestDial(t *testing.T) {
	g := newRig(t)
	p := g.pod("net")
	p.add("main", sh(`exec nc -ll -p 7 -e cat`)...)
	p.sandbox()
	before := g.counts()
	p.start("main", 0)
	var conn net.Conn
	pollEach(t, 10*time.Millisecond, "it listens", func() bool {
		var err error
		conn, err = g.rt.Dial(g.ctx, p.UID, 7)
		return err == nil
	})
	conn.Close()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			c, err := g.rt.Dial(g.ctx, p.UID, 7)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			want := strings.Repeat(fmt.Sprint(i), 1000)
			io.WriteString(c, want)
			c.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(c); string(got) != want || err != nil {
				t.Errorf("got %d bytes: %v", len(got), err)
			}
		})
	}
	all.Wait()
	_, err := g.rt.Dial(g.ctx, p.UID, 8)
	if !errors.Is(err, schema.ErrUnavailable) || err.Error() != "failed to connect to localhost:8 inside the pod: connection refused" {
		t.Errorf("a port where nobody listens: %v", err)
	}
	if _, err := g.rt.Dial(g.ctx, "nosuch", 7); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("no pod: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := g.rt.Dial(g.ctx, p.UID, uint16(l.Addr().(*net.TCPAddr).Port)); err == nil {
		t.Error("the host's loopback is reached")
	}
	for _, name := range []string{"threads", "descriptors"} {
		pollEach(t, 50*time.Millisecond, "no more "+name, func() bool { return g.counts()[name] <= before[name]+12 })
	}
}
