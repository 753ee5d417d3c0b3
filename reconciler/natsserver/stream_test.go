package natsserver

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// The permissions of gateway and node let streams through, and no node hears or
// touches another's.
func TestStreamsBetweenGatewayAndNode(t *testing.T) {
	s := startServer(t, options(t.TempDir(), "127.0.0.1:0"))
	creds, err := s.GatewayCredentials()
	streams := kv.NewStreams(connect(t, s, creds, err))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { streams.Run(ctx) })
	if _, err := streams.Open(t.Context(), "n1", kv.StreamRequest{}); !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "does not listen") {
		t.Errorf("nobody listens: %v", err)
	}

	creds, err = s.NodeCredentials("n1")
	if err != nil {
		t.Fatal(err)
	}
	node, err := kv.Connect(t.Context(), kv.ConnOptions{InProcess: s, Credentials: creds, Name: "n1", InboxPrefix: "_INBOX.n1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	wg.Go(func() {
		kv.ServeStreams(ctx, node, "n1", func(ctx context.Context, r kv.StreamRequest, s *kv.Stream) error {
			return s.Send(ctx, kv.ChannelStdout, []byte(r.Container))
		})
	})

	// Another node listens to what it can, and writes where it can.
	spy := nodeClient(t, s, "n2")
	heard := make(chan *nats.Msg, 16)
	for _, subject := range []string{"pawl.down.n1.stream.>", "pawl.up.n1.stream.>", "pawl.up.>", "pawl.>", ">"} {
		spy.ChanSubscribe(subject, heard)
	}
	for began := time.Now(); time.Since(began) < 30*time.Second; {
		x, err := streams.Open(t.Context(), "n1", kv.StreamRequest{Container: "main"})
		if err != nil {
			<-time.After(10 * time.Millisecond) // it does not listen yet
			continue
		}
		_, data, err := x.Recv(t.Context())
		if err != nil || string(data) != "main" {
			t.Errorf("Recv: %q, %v", data, err)
		}
		x.Close(nil)
		if len(heard) > 0 {
			t.Errorf("another node heard %q", (<-heard).Subject)
		}
		return
	}
	t.Error("no stream in half a minute")
}

// nodeClient is a bare client with a node's credentials.
func nodeClient(t *testing.T, s *Server, n schema.NodeName) *nats.Conn {
	t.Helper()
	creds, err := s.NodeCredentials(n)
	if err != nil {
		t.Fatal(err)
	}
	c, err := nats.Connect("", nats.InProcessServer(s), nats.UserJWTAndSeed(creds.JWT, creds.Seed), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
