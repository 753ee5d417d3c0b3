package githost

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// A push that was accepted while the daemon could not read it (it has run out of
// file descriptors, say) is deployed as soon as it can be read, and not only with
// the next push.
func TestMissedPushIsHandedOnLater(t *testing.T) {
	w := newWorld(t, nil)
	first := w.commit(w.work, "a.yaml", "fine\n")
	w.git(w.work, "push", "-q", w.url(), "HEAD:refs/heads/main")
	w.wantPushed(first)
	second := w.commit(w.work, "b.yaml", "fine\n")
	w.git(w.work, "push", "-q", w.url(), "HEAD:refs/heads/other")

	ref := filepath.Join(w.dir, "cluster.git", "refs", "heads", "main")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(ref, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("not to be read now")
	if err := w.host.handOn(t.Context()); err == nil {
		t.Fatal("the reference can be read: the test shows nothing")
	}
	w.host.missed <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.host.Run(ctx) }()
	eventually(t, "Run has tried", func() bool { return len(w.host.missed) == 0 })
	write(second)
	w.wantPushed(second)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
