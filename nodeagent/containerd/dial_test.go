package containerd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

// TestDial: what listens inside the pod is reached by its loopback; the host's own
// loopback is another.
func TestDial(t *testing.T) {
	g := newRig(t)
	p := g.pod("net")
	p.sandbox()
	before := g.counts()
	defer g.echo(p, 7)()
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

// echo answers inside the pod, on loopback alone, until it is ended.
func (g *rig) echo(p *testPod, port int) (end func()) {
	g.tb.Helper()
	netns, err := os.Open(filepath.Join(g.rt.podDir(p.UID), nsNet.name))
	if err != nil {
		g.tb.Fatal(err)
	}
	defer netns.Close()
	var l net.Listener
	done := make(chan struct{})
	go onThread(func() {
		defer close(done)
		if err = unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err == nil {
			l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		}
	})
	<-done
	if err != nil {
		g.tb.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				text, _ := io.ReadAll(c) // what was said is answered after its end
				c.Write(text)
			})
		}
	})
	return func() { l.Close(); all.Wait() }
}
