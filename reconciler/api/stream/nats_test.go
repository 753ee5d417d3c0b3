package stream

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"github.com/pawl-project/pawl/reconciler/natsserver"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// overNATS gives the rig a node behind a real server, with a node's credentials.
// The returned streams are the control plane's.
func (g *rig) overNATS(handle kv.StreamHandler) *kv.Streams {
	g.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	dir := g.t.TempDir()
	server, err := natsserver.Start(context.Background(), natsserver.Options{
		Dir: filepath.Join(dir, "nats"), KeysDir: filepath.Join(dir, "keys"), Listen: "127.0.0.1:0", Logger: quiet,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	connect := func(creds kv.Credentials, err error, prefix string) *kv.Conn {
		if err != nil {
			g.t.Fatal(err)
		}
		c, err := kv.Connect(context.Background(), kv.ConnOptions{URL: server.ClientURL(), Credentials: creds, InboxPrefix: prefix, Logger: quiet})
		if err != nil {
			g.t.Fatal(err)
		}
		return c
	}
	gateway, err := server.GatewayCredentials()
	control := connect(gateway, err, "")
	creds, err := server.NodeCredentials("n1")
	node := connect(creds, err, "_INBOX.n1")
	streams := kv.NewStreams(control)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = streams.Run(ctx) })
	running.Go(func() { _ = kv.ServeStreams(ctx, node, "n1", handle) })
	g.t.Cleanup(func() {
		cancel()
		running.Wait()
		node.Close()
		control.Close()
		server.Close()
	})
	g.streams.o.Nodes = Over(streams)
	eventually(g.t, "the node listens", func() bool {
		c, err := streams.Open(g.t.Context(), "n1", kv.StreamRequest{Verb: "ready"})
		if err == nil {
			c.Close(nil)
		}
		return !errors.Is(err, schema.ErrUnavailable)
	})
	return streams
}

// ready answers what overNATS asks.
func ready(handle kv.StreamHandler) kv.StreamHandler {
	return func(ctx context.Context, r kv.StreamRequest, s *kv.Stream) error {
		if r.Verb == "ready" {
			return s.Accept()
		}
		return handle(ctx, r, s)
	}
}

func TestCommandOverNATS(t *testing.T) {
	everyTransport(t, best, func(t *testing.T, name string) {
		g := newRig(t, nil)
		streams := g.overNATS(ready(func(ctx context.Context, r kv.StreamRequest, s *kv.Stream) error {
			if r.Exec.Command[0] == "no" {
				return kv.StreamErrorf(schema.ErrRefused, "container main of pod web is not running")
			}
			if err := s.Accept(); err != nil {
				return err
			}
			for {
				channel, data, err := s.Recv(ctx)
				if errors.Is(err, io.EOF) {
					return s.Send(ctx, kv.ChannelResult, []byte(`{"exitCode":9}`))
				}
				if err == nil && channel == kv.ChannelStdin {
					err = s.Send(ctx, kv.ChannelStdout, data)
				}
				if err != nil {
					return err
				}
			}
		}))
		in := make([]byte, 10<<20)
		if _, err := rand.Read(in); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err := g.run(t.Context(), name, remotecommand.StreamOptions{Stdin: bytes.NewReader(in), Stdout: &out}, "cat")
		var code exec.CodeExitError
		if !errors.As(err, &code) || code.Code != 9 || !bytes.Equal(in, out.Bytes()) {
			t.Errorf("%d of %d bytes came back: %v", out.Len(), len(in), err)
		}
		if err := g.run(t.Context(), name, remotecommand.StreamOptions{Stdout: &out}, "no"); err == nil {
			t.Error("ran")
		}
		eventually(t, "the streams have ended", func() bool { return streams.Count() == 0 })
	})
}

func TestFollowerGoneOverNATS(t *testing.T) {
	g := newRig(t, nil)
	ended := make(chan struct{})
	streams := g.overNATS(ready(func(ctx context.Context, _ kv.StreamRequest, s *kv.Stream) error {
		defer close(ended)
		if err := s.Accept(); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	answer := g.get(ctx, "follow=true")
	cancel()
	answer.body.Close()
	<-ended
	eventually(t, "the stream has ended", func() bool { return streams.Count() == 0 })
}

func TestNodeNotConnected(t *testing.T) {
	g := newRig(t, nil)
	g.overNATS(ready(nil))
	g.pod.Spec.NodeName = "n2"
	if s := status(t, g.get(t.Context(), "")); s.Code != 503 || s.Message != "node n2 cannot be reached: it does not listen" {
		t.Errorf("%+v", s)
	}
}

// BenchmarkLogOverNATS is BenchmarkLog with everything but containers.
func BenchmarkLogOverNATS(b *testing.B) {
	g := newRig(b, nil)
	const all = 1 << 30
	part := bytes.Repeat([]byte("x"), 32<<10)
	g.overNATS(ready(func(ctx context.Context, _ kv.StreamRequest, s *kv.Stream) error {
		for range all / len(part) {
			if err := s.Send(ctx, kv.ChannelStdout, part); err != nil {
				return err
			}
		}
		return nil
	}))
	b.SetBytes(all)
	for b.Loop() {
		answer := g.get(b.Context(), "")
		if n, err := io.Copy(io.Discard, answer.body); n != all || err != nil {
			b.Fatal(n, err)
		}
	}
}
