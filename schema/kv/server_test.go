package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// A testServer is a real server, without accounts, that can be stopped and
// started again.
type testServer struct {
	t    testing.TB
	dir  string
	port int
	ns   *server.Server
}

func newServer(t testing.TB) *testServer {
	t.Helper()
	s := &testServer{t: t, dir: t.TempDir(), port: server.RANDOM_PORT}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *testServer) start() {
	s.t.Helper()
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: s.port, NoSigs: true, NoLog: true, MaxPayload: 4 << 20,
		JetStream: true, StoreDir: s.dir, SyncAlways: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(20 * time.Second) {
		s.t.Fatal("server does not start")
	}
	s.ns = ns
	s.port = ns.Addr().(*net.TCPAddr).Port
}

func (s *testServer) stop() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (s *testServer) connect() *Conn {
	s.t.Helper()
	c, err := Connect(context.Background(), ConnOptions{URL: s.ns.ClientURL(), Name: s.t.Name(), Logger: quiet()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

func (s *testServer) inProcess(prefix string) *Conn {
	s.t.Helper()
	c, err := Connect(context.Background(), ConnOptions{InProcess: s.ns, Name: s.t.Name(), InboxPrefix: prefix, Logger: quiet()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

func (s *testServer) store() *Store {
	s.t.Helper()
	return openStore(s.t, s.connect())
}

func openStore(t testing.TB, c *Conn) *Store {
	t.Helper()
	store, err := OpenStore(context.Background(), c, StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// eventually waits for what another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// run runs f until the test ends, or until what it returns is called.
func run(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// text decodes a value as it is; "bad" cannot be decoded.
func text(_ string, raw []byte) (string, error) {
	if string(raw) == "bad" {
		return "", fmt.Errorf("bad: %w", schema.ErrRefused)
	}
	return string(raw), nil
}

func newTextView(t testing.TB, s *Store) *View[string] {
	t.Helper()
	v := NewView(s, Desired, text)
	run(t, v.Run)
	eventually(t, "the view is whole", v.Whole)
	return v
}

func commit(t testing.TB, s *Store, writes ...Write) []uint64 {
	t.Helper()
	revisions, err := s.Commit(context.Background(), writes)
	if err != nil {
		t.Fatal(err)
	}
	return revisions
}

func put(key, value string, revision uint64) Write {
	return Write{Bucket: Desired, Key: key, Value: []byte(value), Revision: revision}
}

func del(key string, revision uint64) Write {
	return Write{Bucket: Desired, Key: key, Delete: true, Revision: revision}
}

func somePod(name string) corev1.Pod {
	return corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "u"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "busybox"}}},
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Everything that was started ends: connections, views, agents, doors.
func TestNothingIsLeftRunning(t *testing.T) {
	s := newServer(t)
	warm, err := Connect(t.Context(), ConnOptions{URL: s.ns.ClientURL(), Name: "warm", Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	openStore(t, warm)
	warm.Close()
	ours := func() int {
		stacks := make([]byte, 4<<20)
		n := 0
		for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if (strings.Contains(stack, "/schema/kv") || strings.Contains(stack, "nats.go")) && !strings.Contains(stack, "testing.") {
				n++
			}
		}
		return n
	}
	before := ours()
	for range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		c, err := Connect(ctx, ConnOptions{URL: s.ns.ClientURL(), Name: "leak", InboxPrefix: "_INBOX.n1", Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		store := openStore(t, c)
		view := NewView(store, Desired, text)
		door := NewDoor(c, func(schema.NodeName, string) {})
		agent := NewAgent(c, "n1")
		var all sync.WaitGroup
		all.Go(func() { view.Run(ctx) })
		all.Go(func() {
			door.Run(ctx, func(r Request) { door.Answer(r, Answer{Set: &Set{Generation: Generation{Epoch: "e"}}}) })
		})
		all.Go(func() { agent.Run(ctx, handler{whole: func(Set) {}, delta: func(Delta) {}}) })
		eventually(t, "whole", view.Whole)
		commit(t, store, put("a", "1", mustRevision(view, "a")))
		eventually(t, "agent has a set", func() bool { return agent.generation().Epoch == "e" })
		cancel()
		all.Wait()
		c.Close()
	}
	eventually(t, fmt.Sprintf("as many goroutines as before (%d)", before), func() bool { return ours() <= before })
}

func mustRevision(v *View[string], key string) uint64 {
	e, _ := v.Get(key)
	return e.Revision
}

// handler makes an AgentHandler of two functions.
type handler struct {
	whole func(Set)
	delta func(Delta)
}

func (h handler) Whole(s Set)   { h.whole(s) }
func (h handler) Delta(d Delta) { h.delta(d) }
