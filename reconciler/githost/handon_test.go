package githost

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/pawl-project/pawl/schema"
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

// A commit that is refused for its tree, before anything in it is looked at, is
// recorded as any other.
func TestCommitRefusedForItsTreeIsTold(t *testing.T) {
	type told struct {
		commit  schema.Commit
		refusal *schema.Refusal
	}
	refused := make(chan told, 10)
	w := newWorld(t, func(o *Options) {
		o.Path = "prod"
		o.Refused = func(c schema.Commit, r *schema.Refusal) { refused <- told{c, r} }
	})
	id := w.commit(w.work, "a.yaml", "fine\n")
	if out, err := w.try(w.work, "push", "-q", w.url(), "HEAD:refs/heads/main"); err == nil {
		t.Fatalf("accepted: %s", out)
	}
	select {
	case r := <-refused:
		if r.commit.ID != id || r.commit.Subject != "change a.yaml" || len(r.refusal.Faults) != 1 {
			t.Errorf("told of %+v", r)
		}
	default:
		t.Error("nobody was told")
	}
}
