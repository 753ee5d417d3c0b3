package reconciler

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/natsserver"
	"github.com/pawl-project/pawl/reconciler/plan"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// The store is wiped and its views are whole again before the loop looks: what
// vanished from pawl-desired did not leave the repository.
func TestLossWithinOneStep(t *testing.T) {
	dir := t.TempDir()
	start := func(listen string) *natsserver.Server {
		s, err := natsserver.Start(t.Context(), natsserver.Options{
			Dir: filepath.Join(dir, "nats"), KeysDir: filepath.Join(dir, "keys"), Listen: listen, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	server := start("127.0.0.1:0")
	defer func() { server.Close() }()
	credentials, err := server.ControlCredentials()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := kv.Connect(t.Context(), kv.ConnOptions{URL: server.ClientURL(), Credentials: credentials, Name: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	store, err := kv.OpenStore(t.Context(), conn, kv.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l := &loop{
		store: store, views: newViews(store), intake: newIntake(slog.New(slog.DiscardHandler)), log: slog.New(slog.DiscardHandler),
		planner: plan.NewPlanner(&plan.World{KeepAll: true}), events: make(chan bulletin, eventBacklog),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.views.run(ctx) }()
	defer func() { cancel(); <-done }()
	c := l.views.subscribe()
	defer c.close()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within 20 s: %s", what)
			}
		}
	}
	step := func() {
		t.Helper()
		if _, err := l.step(t.Context(), c, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	until("whole", l.views.whole)
	settings := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"},
	}
	l.intake.put(&verdict{commit: schema.Commit{ID: "abc"}, revision: &schema.Revision{Objects: []schema.Object{settings}}, seen: time.Now()})
	step()
	if l.views.desired.Len() != 1 {
		t.Fatalf("the revision is not in the store: %d objects", l.views.desired.Len())
	}

	url := strings.TrimPrefix(server.ClientURL(), "nats://")
	server.Close()
	if err := os.RemoveAll(filepath.Join(dir, "nats")); err != nil {
		t.Fatal(err)
	}
	server = start(url)
	until("whole again, and empty", func() bool { return l.views.whole() && l.views.desired.Len() == 0 })
	step()
	if l.views.desired.Len() != 1 || !l.checked {
		t.Errorf("after the loss the store holds %d objects, compared: %v", l.views.desired.Len(), l.checked)
	}
}
