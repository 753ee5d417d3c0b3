package containerd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

const socketTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1CFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100 0 0 10 0
   1: 00000000:1CFD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1CFC 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0000000000000000 100 0 0 10 0
   3: 00000000000000000000000000000000:1CFE 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 14 1
   4: 0000000000000000FFFF00000100000A:1CFF 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 15 1
   5: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 16 2 0000000000000000 0
   6: 0100007 short
   7: XX00007F:1CFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17 1
`

func TestListening(t *testing.T) {
	for _, c := range []struct {
		ip   string
		port uint16
		want string
	}{
		{"", 7420, "11"}, // and not the connection 13
		{"127.0.0.1", 7420, "11"},
		{"10.0.0.1", 7420, ""},
		{"10.0.0.1", 7421, "12"},
		{"10.0.0.1", 7422, "14"},
		{"10.0.0.1", 7423, "15"},
		{"10.0.0.2", 7423, ""},
		{"", 53, "16"},
		{"", 80, ""},
	} {
		var ip netip.Addr
		if c.ip != "" {
			ip = netip.MustParseAddr(c.ip)
		}
		found, err := listening(strings.NewReader(socketTable), ip, c.port)
		if err != nil || strings.Join(found, " ") != c.want {
			t.Errorf("%s port %d: sockets %v, %v; want %q", c.ip, c.port, found, err, c.want)
		}
	}
}

func FuzzSocketAddress(f *testing.F) {
	for line := range strings.Lines(socketTable) {
		f.Add(strings.Fields(line)[1])
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := socketAddress(text)
		if ok && !at.Addr().IsValid() {
			t.Errorf("%q: no address", text)
		}
	})
}

// A pod does not get a port that this very process listens on, and says why; one
// that nobody of Pawl's listens on it gets.
func TestHostPortOfOurOwn(t *testing.T) {
	g := newRig(t)
	listen := func(network, address string) (port int32) {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return int32(l.Addr().(*net.TCPAddr).Port)
	}
	local, wild := listen("tcp4", "127.0.0.1:0"), listen("tcp", ":0")
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	udp := int32(packets.LocalAddr().(*net.UDPAddr).Port)

	for _, c := range []struct {
		port corev1.ContainerPort
		free bool
	}{
		{corev1.ContainerPort{HostPort: local}, false},
		{corev1.ContainerPort{HostPort: local, Protocol: corev1.ProtocolTCP, HostIP: "127.0.0.1"}, false},
		{corev1.ContainerPort{HostPort: local, HostIP: "127.0.0.2"}, true},
		{corev1.ContainerPort{HostPort: wild, HostIP: "127.0.0.2"}, false},
		{corev1.ContainerPort{HostPort: udp, Protocol: corev1.ProtocolUDP}, false},
		{corev1.ContainerPort{HostPort: 1, Protocol: corev1.ProtocolTCP}, true},
	} {
		err := checkFree([]corev1.ContainerPort{c.port})
		if c.free != (err == nil) || !c.free && !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%+v: %v", c.port, err)
		}
	}

	p := g.pod("thief")
	p.add("main", "sleep", "60").Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: local, Protocol: corev1.ProtocolTCP}}
	_, err = g.rt.CreateSandbox(g.ctx, p.Pod)
	want := fmt.Sprintf("hostPort %d: Pawl itself listens on this port of the node", local)
	if !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), want) {
		t.Fatalf("sandbox of a pod with our port: %v", err)
	}
	if left, err := g.rt.sandboxes(); err != nil || slices.Contains(left, p.UID) {
		t.Errorf("sandboxes left: %v, %v", left, err)
	}
}
