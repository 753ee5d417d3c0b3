package nodeagent

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Whatever a container answers to a probe, the probe ends in time, with a verdict
// that fits into a message.
func FuzzProbeAnswers(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx"))
	f.Add([]byte("HTTP/1.1 500 \xff\xfe\r\nContent-Length: 99999999999999999999\r\n\r\n"))
	f.Add([]byte("\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x01\x00\x00\x00\x05\x00\x00\x40\x00")) // HTTP/2 settings
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	answer := answering(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		port := answer(text)
		target := probeTarget{ip: "127.0.0.1", container: &corev1.Container{Name: "main"}}
		for kind, probe := range map[string]func(context.Context) error{
			"http": func(ctx context.Context) error {
				return probeHTTP(ctx, target, &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(port)})
			},
			"grpc": func(ctx context.Context) error {
				return probeGRPC(ctx, target, &corev1.GRPCAction{Port: port})
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			began := time.Now()
			err := probe(ctx)
			cancel()
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("%s: took %s", kind, took)
			}
			if err != nil && len(err.Error()) > 64<<10 {
				t.Errorf("%s: a message of %d bytes", kind, len(err.Error()))
			}
		}
	})
}

// answering serves the text that it was given last to whoever connects.
func answering(f *testing.F) func(text []byte) (port int32) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	var mu sync.Mutex
	var now []byte
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			text := bytes.Clone(now)
			mu.Unlock()
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(time.Second))
				c.Read(make([]byte, 1024))
				c.Write(text)
			}()
		}
	}()
	return func(text []byte) int32 {
		mu.Lock()
		defer mu.Unlock()
		now = text
		return int32(l.Addr().(*net.TCPAddr).Port)
	}
}
