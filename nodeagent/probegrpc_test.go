package nodeagent

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestGRPCProbe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(s, h)
	h.SetServingStatus("shop", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	port := int32(l.Addr().(*net.TCPAddr).Port)
	for service, want := range map[string]string{"": "", "shop": "NOT_SERVING", "none": "unknown service"} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: ptr.To(service)}}}
		err := newProber(nil)(ctx, probeTarget{ip: "127.0.0.1"}, p)
		cancel()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("service %q: %v, want %q", service, err, want)
		}
	}
}

// A probe asks the pod, whatever proxy the node's administrator gave the agent for
// its own ways into the world. Go reads that once in the life of a process, so
// this needs one of its own.
func TestGRPCProbeAsksNoProxy(t *testing.T) {
	if proxy := os.Getenv("PAWL_TEST_PROXIED"); proxy != "" {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := probeGRPC(ctx, probeTarget{ip: "192.0.2.1"}, &corev1.GRPCAction{Port: 7}); err == nil {
			t.Error("an address that nobody has answers")
		}
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan bool, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		asked <- err == nil
	}()
	proxy := "http://" + l.Addr().String()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestGRPCProbeAsksNoProxy$")
	cmd.Env = append(os.Environ(), "PAWL_TEST_PROXIED=1", "HTTPS_PROXY="+proxy, "https_proxy="+proxy, "HTTP_PROXY="+proxy, "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	l.Close()
	if <-asked {
		t.Error("the probe asked the proxy")
	}
}
