package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

func (f *fixture) publish(uid types.UID, ports ...corev1.ContainerPort) {
	f.t.Helper()
	if err := f.Publish(f.t.Context(), uid, ports); err != nil {
		f.t.Fatal(err)
	}
}

func hostPortTo(host, pod int32) corev1.ContainerPort {
	return corev1.ContainerPort{HostPort: host, ContainerPort: pod, Protocol: corev1.ProtocolTCP}
}

// answers says whether somebody takes connections at an address.
func (ns *namespace) answers(address string) (yes bool) {
	ns.t.Helper()
	ns.in(func() error {
		c, err := net.DialTimeout("tcp4", address, 3*time.Second)
		if err == nil {
			yes = true
			c.Close()
		}
		return nil
	})
	return yes
}

// portTables counts the instance's tables of ports.
func (f *fixture) portTables() (n int) {
	f.t.Helper()
	err := f.onTables(func(c *nftables.Conn) error {
		tables, err := c.ListTables()
		for _, t := range tables {
			if strings.HasSuffix(t.Name, "-ports") {
				n++
			}
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// TestHostPorts asks a pod by its node's port from everywhere: outside, the node
// by each of its addresses, another pod, and the pod itself.
func TestHostPorts(t *testing.T) {
	f := newFixture(t, "")
	outside := f.uplink("192.0.2.1/24", "192.0.2.9/24")
	a, b := newNamespace(t), newNamespace(t)
	f.attach("a", a)
	f.attach("b", b)
	a.serve(":80")
	bound := hostPortTo(8081, 80)
	bound.HostIP = "127.0.0.1"
	f.publish("a", hostPortTo(8080, 80), bound, corev1.ContainerPort{ContainerPort: 9})
	for _, e := range []struct {
		from     *namespace
		to, sees string
	}{
		{outside, "192.0.2.1:8080", "192.0.2.9"},
		{f.host, "127.0.0.1:8080", "10.42.0.1"},
		{f.host, "127.0.0.1:8081", "10.42.0.1"},
		{f.host, "192.0.2.1:8080", "192.0.2.1"},
		{f.host, "10.42.0.1:8080", "10.42.0.1"},
		{b, "192.0.2.1:8080", "10.42.0.1"},
		{b, "10.42.0.1:8080", "10.42.0.1"},
		{a, "192.0.2.1:8080", "10.42.0.1"},
	} {
		if got := e.from.ask(e.to); got != e.sees {
			t.Errorf("by %s the pod saw %q, want %q", e.to, got, e.sees)
		}
	}
	if outside.answers("192.0.2.1:8081") {
		t.Error("a port of 127.0.0.1 is there for the outside")
	}
	// A restarted agent leaves them and finds them; what it did not know goes.
	f.restart("")
	f.setup()
	if got := outside.ask("192.0.2.1:8080"); got != "192.0.2.9" {
		t.Errorf("after a restart the pod saw %q", got)
	}
	f.publish("a", hostPortTo(8090, 80))
	if outside.answers("192.0.2.1:8080") || outside.ask("192.0.2.1:8090") != "192.0.2.9" {
		t.Error("what is published anew does not take the old one's place")
	}
	f.detach("a")
	if outside.answers("192.0.2.1:8090") || f.portTables() != 0 {
		t.Error("the port is left of a detached pod")
	}
}

// The node's loopback stays its own, though packets from it may leave by the bridge.
func TestHostPortsKeepLoopback(t *testing.T) {
	f := newFixture(t, "")
	a, b := newNamespace(t), newNamespace(t)
	f.attach("a", a)
	f.attach("b", b)
	f.publish("a", hostPortTo(8080, 80))
	f.host.serve("127.0.0.1:7777")
	// A pod with the right to change its own network sends it there by force.
	b.in(func() error {
		for file, value := range map[string]string{"conf/all/route_localnet": "1", "conf/eth0/route_localnet": "1"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+file, []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
	nl := b.handle()
	lo, err := nl.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	own, err := netlink.ParseAddr("127.0.0.1/8")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(nl.AddrDel(lo, own), nl.LinkSetDown(lo)); err != nil {
		t.Fatal(err)
	}
	eth, err := nl.LinkByName(podLink)
	if err != nil {
		t.Fatal(err)
	}
	if err := nl.RouteReplace(routeVia(eth.Attrs().Index, "127.0.0.0/8", f.Gateway())); err != nil {
		t.Fatal(err)
	}
	if b.answers("127.0.0.1:7777") {
		t.Error("a pod reaches what listens on the node's loopback")
	}
}

// Whatever is refused changes nothing.
func TestHostPortsRefused(t *testing.T) {
	f := newFixture(t, "")
	if err := f.Publish(t.Context(), "nobody", []corev1.ContainerPort{hostPortTo(1, 1)}); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("of a pod that is not attached: %v", err)
	}
	f.attach("a", newNamespace(t))
	for _, p := range []corev1.ContainerPort{
		{HostPort: 80, ContainerPort: 80, HostIP: "::1"}, {HostPort: 80, ContainerPort: 80, HostIP: "x"},
		{HostPort: 80, ContainerPort: 80, Protocol: "ICMP"}, {HostPort: 80},
	} {
		if err := f.Publish(t.Context(), "a", []corev1.ContainerPort{p}); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if n := f.portTables(); n != 0 {
		t.Errorf("%d tables", n)
	}
}

// A kill between the steps, and files that are not what they were, do no harm.
func TestHostPortsCrash(t *testing.T) {
	f := newFixture(t, "")
	a := newNamespace(t)
	ip := f.attach("a", a)
	a.serve(":80")
	f.publish("a", hostPortTo(8080, 80))
	dir := f.portsDir()
	record := fmt.Sprintf(`[{"hostPort":8082,"protocol":"TCP","podIP":"%s","podPort":80}]`, ip)
	for name, text := range map[string]string{
		".b": record, "gone": record, // half written; of a pod without an address
		"a": record, // written, and killed before the table was made
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.restart("")
	f.setup()
	if f.host.answers("127.0.0.1:8080") || !f.host.answers("127.0.0.1:8082") {
		t.Error("the table is not what the files say")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("files %v, %v", entries, err)
	}
	stolen := `[{"hostPort":22,"protocol":"TCP","podIP":"10.42.0.99","podPort":80}]`
	for _, text := range []string{"{", stolen, `[{"hostPort":1}]`, "[]"} {
		if err := os.WriteFile(filepath.Join(dir, "a"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		f.restart("")
		f.setup()
		if n := f.portTables(); n != 0 {
			t.Errorf("%s: %d tables", text, n)
		}
	}
	f.publish("a", hostPortTo(8080, 80))
	if err := f.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.state); f.portTables() != 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("taken down: %d tables, %v", f.portTables(), err)
	}
}

// A flow of datagrams follows the port to the next pod.
func TestHostPortsDatagrams(t *testing.T) {
	f := newFixture(t, "")
	port := corev1.ContainerPort{HostPort: 5300, ContainerPort: 53, Protocol: corev1.ProtocolUDP}
	for _, uid := range []types.UID{"first", "second"} {
		ns := newNamespace(t)
		f.attach(uid, ns)
		ns.echo(string(uid))
	}
	var client net.Conn
	f.host.in(func() (err error) { client, err = net.Dial("udp4", "127.0.0.1:5300"); return err })
	defer client.Close()
	asked := 0
	ask := func() string {
		answer := make([]byte, 100)
		for first := asked; asked < first+50; {
			asked++
			if _, err := fmt.Fprint(client, asked); err != nil {
				continue // refused: nobody was there when it was sent before
			}
			client.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			for {
				n, err := client.Read(answer)
				if err != nil {
					break
				}
				// What comes late answers a question of before.
				if name, to, _ := strings.Cut(string(answer[:n]), " "); to == fmt.Sprint(asked) {
					return name
				}
			}
		}
		return ""
	}
	f.publish("first", port)
	if got := ask(); got != "first" {
		t.Fatalf("answered by %q", got)
	}
	f.detach("first")
	f.publish("second", port)
	if got := ask(); got != "second" {
		t.Errorf("after the port was another's, answered by %q", got)
	}
}

// FuzzPorts: what is read of a record can be a rule.
func FuzzPorts(f *testing.F) {
	f.Add([]byte(`[{"hostPort":80,"protocol":"TCP","podIP":"10.42.0.2","podPort":80,"hostIP":"127.0.0.1"}]`))
	f.Add([]byte(`[{"hostPort":-1}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parsePorts(text)
		if err != nil {
			return
		}
		for _, h := range list {
			if len(h.PodIP.AsSlice()) != 4 || protocols[h.Protocol] == 0 || len(join(h.asked(), h.leads(), h.wasAsked())) == 0 {
				t.Errorf("%+v", h)
			}
		}
		if err := leadTo(list, netip.MustParseAddr("10.42.0.2")); err == nil {
			for _, h := range list {
				if h.PodIP.String() != "10.42.0.2" {
					t.Errorf("%+v leads elsewhere", h)
				}
			}
		}
	})
}

func routeVia(link int, to string, gateway netip.Addr) *netlink.Route {
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		panic(err)
	}
	return &netlink.Route{LinkIndex: link, Dst: dst, Gw: gateway.AsSlice()}
}

// echo answers every datagram to port 53 with a name and what it holds.
func (ns *namespace) echo(name string) {
	ns.t.Helper()
	var l net.PacketConn
	ns.in(func() (err error) { l, err = net.ListenPacket("udp4", ":53"); return err })
	if l == nil {
		ns.t.FailNow()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 100); ; {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			l.WriteTo([]byte(name+" "+string(b[:n])), from)
		}
	}()
	ns.t.Cleanup(func() { l.Close(); <-done })
}
