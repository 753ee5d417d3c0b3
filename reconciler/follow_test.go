package reconciler

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pawl-project/pawl/reconciler/githost"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/manifest"
)

// brokenTree has a file that cannot be read, as in a mirror whose disk failed.
type brokenTree struct{ schema.Tree }

func (brokenTree) Read(schema.TreeFile, int64) ([]byte, error) {
	return nil, errors.New("input/output error")
}

const aNamespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"

// newestOf waits for the commit that the loop is to take up.
func newestOf(t *testing.T, in *intake) string {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		if v := in.next(); v != nil {
			return v.commit.ID
		}
		select {
		case <-in.wake:
		case <-deadline:
			t.Fatal("no commit was judged within 20 s")
		}
	}
}

// A commit that cannot be judged, however often it is tried, does not keep a
// newer one from being judged.
func TestNewerCommitNeedNotWait(t *testing.T) {
	in := newIntake(slog.New(slog.DiscardHandler))
	commits := make(chan schema.Commit)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- in.judge(ctx, commits, nil) }()
	tree := manifest.MemTree(map[string]string{"team.yaml": aNamespace})
	for _, c := range []schema.Commit{{ID: "broken", Tree: brokenTree{tree}}, {ID: "good", Tree: tree}} {
		select {
		case commits <- c:
		case <-time.After(20 * time.Second):
			t.Fatalf("commit %s is not looked at within 20 s", c.ID)
		}
	}
	if id := newestOf(t, in); id != "good" {
		t.Errorf("judged %q", id)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The deployed folder is not in the branch, because --git-path was changed: the
// control plane runs all the same, and takes the push that brings it.
func TestHeadThatCannotBeDeployedStopsNothing(t *testing.T) {
	dir := t.TempDir()
	bare := filepath.Join(dir, "cluster.git")
	host, err := githost.New(githost.Options{
		Dir: bare, RunDir: filepath.Join(dir, "run"), Path: "clusters/prod",
		Guard:  func(h http.Handler) http.Handler { return h },
		Check:  func(context.Context, schema.Commit) ([]schema.Fault, error) { return nil, nil },
		Pushed: func(schema.Commit) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	work := filepath.Join(dir, "work")
	if err := os.MkdirAll(work, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"-c", "user.name=Ann", "-c", "user.email=ann@example.com", "commit", "-q", "--allow-empty", "-m", "nothing yet"},
		{"--git-dir", bare, "fetch", "-q", work, "main:main", "--update-head-ok"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = work
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	in := newIntake(slog.New(slog.DiscardHandler))
	pushed := make(chan schema.Commit, 1)
	pushed <- schema.Commit{ID: "good", Tree: manifest.MemTree(map[string]string{"team.yaml": aNamespace})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- follow(ctx, host, pushed, in) }()
	if id := newestOf(t, in); id != "good" {
		t.Errorf("judged %q", id)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the control plane stops: %v", err)
	}
}
